"""One thread, one seed, and a check after every test that nothing stays installed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for kernels and processes that tests start

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from torch.amp import GradScaler
from torch.nn.modules import module as module_hooks
from torch.optim import Optimizer
from torch.optim import optimizer as optimizer_hooks
from torch.utils.data import dataloader

from tests.workers import Together

# The same examples in every run; a search for others: --hypothesis-profile=default
settings.register_profile("same", derandomize=True, database=None)
settings.load_profile("same")
torch.set_num_threads(1)
# A shell has what it starts in the background ignore interrupts, and so would every process that
# the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nobody asks
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """The division of the suite among workers."""
    return Together(config, log)


@pytest.fixture(autouse=True)
def nothing_stays_installed() -> Iterator[None]:
    """Fails a test after which anything is still attached, changed or running."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    before, threads = installed(), set(threading.enumerate())
    yield
    after = installed()
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    assert not changed, f"still installed or changed after the test: {', '.join(changed)}"
    left = threads_left(threads)
    assert not left, f"threads still running after the test: {', '.join(left)}"


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made once in a run, whichever worker wants it first."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # which all workers share
    folder = base / name
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            folder.mkdir()
            make(folder)
            (folder / "complete").touch()
    return folder


@pytest.fixture(scope="session")
def built_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the back end that this environment has."""
    (wheel,) = once(tmp_path_factory, "wheel", _build_wheel).glob("*.whl")
    return wheel


def _build_wheel(folder: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(folder)]
    # Yarn, as Jupyter ships it, lies beside the interpreter.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path}
    root = Path(__file__).resolve().parent.parent
    built = root / "nanhunt" / "labextension" / "package.json"
    sources = [*root.glob("labextension/src/**/*.ts*"), *root.glob("labextension/style/*")]
    sources.append(root / "nanhunt" / "panel" / "controls.json")
    newest = max(source.stat().st_mtime for source in sources)
    fresh = not built.exists() or built.stat().st_mtime > newest
    assert fresh, "the built extension is older than its sources: `make lint` builds it anew"
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
