"""What surrounds a cell invisibly, and enters a worker thread only when it is told to.

A new thread inherits none of this (measured with PyTorch 2.13): autocast, grad and inference
mode, the default device, function and dispatch modes, hooks on saved tensors, the current CUDA
device and stream, flushing of subnormal numbers, and context variables.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import overrides
from torch.utils import _device as device_module
from torch.utils import _python_dispatch as dispatch

_AUTOCAST_DEVICES = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia")


class Ambient:
    """The state of the thread that makes this, to be entered in another.

    Modes are entered as the same objects: a mode of the user's that counts goes on counting.
    """

    def __init__(self) -> None:
        self._grad = torch.is_grad_enabled()
        self._inference = torch.is_inference_mode_enabled()
        self._multithreading = torch._C._is_multithreading_enabled()
        self._view_replay = torch._C._is_view_replay_enabled()
        self._autocast = [
            (device, torch.get_autocast_dtype(device))
            for device in _AUTOCAST_DEVICES
            if torch.is_autocast_enabled(device)
        ]
        self._cache = torch.is_autocast_cache_enabled()
        default = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
        self._default_device = default.device if default is not None else None
        self._functions = overrides._get_current_function_mode_stack()
        self._dispatch = dispatch._get_current_dispatch_mode_stack()
        self._saved = torch._C._autograd._top_saved_tensors_default_hooks(True)
        self._cuda = _current_cuda()
        self._flush = _flushes_subnormals()
        self._threads = torch.get_num_threads()
        self._context = contextvars.copy_context()

    def run(self, function: Callable[[], None]) -> None:
        """Calls a function in this thread as if it were in the one this was made in."""

        def entered() -> None:
            with contextlib.ExitStack() as stack:
                self._enter(stack)
                function()

        self._context.copy().run(entered)

    def _enter(self, stack: contextlib.ExitStack) -> None:
        stack.callback(torch.set_flush_denormal, _flushes_subnormals())
        torch.set_flush_denormal(self._flush)
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        if self._cuda is not None:
            stack.enter_context(torch.cuda.device(self._cuda[0]))
            stack.enter_context(torch.cuda.stream(self._cuda[1]))
        stack.enter_context(torch.autograd.set_multithreading_enabled(self._multithreading))
        replay = torch.autograd.grad_mode._force_original_view_tracking(self._view_replay)
        stack.enter_context(replay)
        self._enter_modes(stack)
        if self._saved is not None:
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(*self._saved))
        for device, dtype in self._autocast:
            autocast = torch.autocast(device, dtype=dtype, cache_enabled=self._cache)
            stack.enter_context(autocast)
        if self._inference:
            stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.set_grad_enabled(self._grad))

    def _enter_modes(self, stack: contextlib.ExitStack) -> None:
        # Pushed, not entered: `__enter__` of a mode of the user's may begin it anew.
        if self._default_device is not None:
            stack.enter_context(_default_device(self._default_device))
        for mode in self._functions:
            if not isinstance(mode, device_module.DeviceContext):
                overrides._push_mode(mode)
                stack.callback(overrides._pop_mode)
            elif self._default_device is None:  # `with torch.device(...)` around the cell
                stack.enter_context(torch.device(mode.device))
        for inner in self._dispatch:
            dispatch._push_mode(inner)
            stack.callback(dispatch._pop_mode)


@contextlib.contextmanager
def _default_device(device: torch.device) -> Iterator[None]:
    """Sets this thread's default device; torch keeps a copy of it for the whole process."""
    torch.set_default_device(device)
    shared: Any = device_module
    entered = shared.CURRENT_DEVICE
    try:
        yield
    finally:
        left = shared.CURRENT_DEVICE
        torch.set_default_device(None)
        if left != entered:  # another thread has changed it meanwhile
            shared.CURRENT_DEVICE = left


def _current_cuda() -> tuple[int, Any] | None:
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    return torch.cuda.current_device(), torch.cuda.current_stream()


def _flushes_subnormals() -> bool:
    """Whether this thread's processor takes subnormal numbers for zero; torch has no getter."""
    with torch._C.DisableTorchFunction(), dispatch._disable_current_modes():
        smallest = torch.finfo(torch.float32).tiny
        return not bool((torch.tensor([smallest], device="cpu") * 0.5).item())
