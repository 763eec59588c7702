"""PyTorch's thread-local state (autocast, grad mode, modes), entered in a worker thread.

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

from nanhunt import torch_private
from nanhunt.core.tensors.devices import AUTOCAST


class Ambient:
    """The state of the thread that makes this, to be entered in another.

    Modes are entered as the same objects: a mode of the user's that counts goes on counting.
    """

    def __init__(self) -> None:
        self._grad = torch.is_grad_enabled()
        self._inference = torch.is_inference_mode_enabled()
        self._multithreading = torch_private.multithreading_enabled()
        self._view_replay = torch_private.view_replay_enabled()
        self._autocast = [
            (device, torch.get_autocast_dtype(device))
            for device in AUTOCAST
            if torch.is_autocast_enabled(device)
        ]
        self._cache = torch.is_autocast_cache_enabled()
        self._default_device = torch_private.default_device()
        self._functions = torch_private.function_modes()
        self._dispatch = torch_private.dispatch_modes()
        self._saved = torch_private.saved_tensors_hooks()
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
        stack.enter_context(torch_private.view_replay(self._view_replay))
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
            if not isinstance(mode, torch_private.DeviceMode):
                torch_private.push_function_mode(mode)
                stack.callback(torch_private.pop_function_mode)
            elif self._default_device is None:  # `with torch.device(...)` around the cell
                stack.enter_context(torch.device(mode.device))
        for inner in self._dispatch:
            torch_private.push_dispatch_mode(inner)
            stack.callback(torch_private.pop_dispatch_mode)


@contextlib.contextmanager
def _default_device(device: torch.device) -> Iterator[None]:
    """Sets this thread's default device; torch keeps a copy of it for the whole process."""
    torch.set_default_device(device)
    entered = torch_private.shared_device()
    try:
        yield
    finally:
        left = torch_private.shared_device()
        torch.set_default_device(None)
        if left != entered:  # another thread has changed it meanwhile
            torch_private.set_shared_device(left)


def _current_cuda() -> tuple[int, Any] | None:
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    return torch.cuda.current_device(), torch.cuda.current_stream()


def _flushes_subnormals() -> bool:
    """Whether this thread's processor takes subnormal numbers for zero; torch has no getter."""
    with torch_private.function_modes_off(), torch_private.dispatch_modes_off():
        smallest = torch.finfo(torch.float32).tiny
        return not bool((torch.tensor([smallest], device="cpu") * 0.5).item())
