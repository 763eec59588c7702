"""Everything that a hunt could leave behind, in a form that can be compared."""

from __future__ import annotations

import signal
import sys
import threading
import time
from typing import Any

import torch
from torch.amp import GradScaler
from torch.nn.modules import module as module_hooks
from torch.optim import Optimizer
from torch.optim import optimizer as optimizer_hooks
from torch.utils.data import dataloader

LOADER_ITERATORS = (
    dataloader._BaseDataLoaderIter,
    dataloader._SingleProcessDataLoaderIter,
    dataloader._MultiProcessingDataLoaderIter,
)

# Threads of others that live on after the test that woke them, each with its reason.
LASTING_THREADS = {
    "IPythonHistorySavingThread": "one per IPython shell, for as long as the shell lives",
    "tqdm_monitor": "one per process, from the first progress bar on",
}


def global_hooks(module: Any) -> dict[str, Any]:
    """The contents of every `_global_*` hook table of one of torch's modules."""
    tables = {name: value for name, value in vars(module).items() if name.startswith("_global_")}
    return {
        name: tuple(value.items()) if isinstance(value, dict) else value
        for name, value in tables.items()
        if "hook" in name
    }


def methods(owner: type) -> dict[str, Any]:
    """What is written in the class itself, by name."""
    return {f"{owner.__name__}.{name}": value for name, value in vars(owner).items()}


def installed() -> dict[str, Any]:
    """Everything that a hunt could leave behind, by name, in a form that can be compared."""
    state = {
        **global_hooks(module_hooks),
        **global_hooks(optimizer_hooks),
        **methods(GradScaler),
        "torch.autograd.backward": torch.autograd.backward,
        "torch.autograd.grad": torch.autograd.grad,
        "torch.autograd's engine": torch.autograd._engine_run_backward,
        "Tensor.backward": torch.Tensor.backward,
        "Module.__call__": torch.nn.Module.__call__,
        "Module._call_impl": torch.nn.Module._call_impl,
        "Optimizer.step": Optimizer.step,
        "checkpoint": torch.utils.checkpoint.checkpoint,
        "torch.save": torch.save,
        "Optimizer.__init__": Optimizer.__init__,
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "function modes": torch._C._len_torch_function_stack(),
        "saved tensors hooks": torch._C._autograd._top_saved_tensors_default_hooks(True),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly mode": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "deterministic algorithms": torch.get_deterministic_debug_mode(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        "default dtype": torch.get_default_dtype(),
        "interrupt handler": signal.getsignal(signal.SIGINT),
        "profile and trace functions": (sys.getprofile(), sys.gettrace()),
    }
    for iterator in LOADER_ITERATORS:
        state[f"{iterator.__name__}.__next__"] = iterator.__next__
    return state


def threads_left(before: set[threading.Thread]) -> list[str]:
    """Names of the threads that were started since, after a moment to end by themselves."""
    deadline = time.monotonic() + 2
    # A dummy thread stands for one that torch's autograd engine owns.
    started = [
        thread
        for thread in set(threading.enumerate()) - before
        if thread.name not in LASTING_THREADS and not isinstance(thread, threading._DummyThread)
    ]
    for thread in started:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in started if thread.is_alive()]
