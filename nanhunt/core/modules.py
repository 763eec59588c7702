"""Which module is running, and its n-th call of the step, kept by torch's global module hooks."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from nanhunt.core.stats import plain_tensors, tensor_stats
from nanhunt.core.target import Target
from nanhunt.report import Frame

RECOMPUTE = "recompute"
_FRAMES_KEPT = 8


class Place(NamedTuple):
    """A module call: its qualified name, the n-th call of the step, its class."""

    module: str
    call: int | str
    kind: str


class ModuleStack:
    """The stack of running modules; foreign modules (a criterion) do not count.

    Global hooks are used because hooks on a module that `torch.compile` has already
    compiled never fire.

    Args:
        target: gives the names.
        in_backward: tells whether the autograd engine is running; a module called
            then belongs to activation checkpointing's second pass.
        quietly: runs a function without it being observed.
        keep_frames: whether to keep statistics of the last modules' outputs.
    """

    def __init__(
        self,
        target: Target,
        in_backward: Callable[[], bool],
        quietly: Callable[[Callable[[], Any]], Any],
        keep_frames: bool = False,
    ) -> None:
        self._target = target
        self._in_backward = in_backward
        self._quietly = quietly
        self._keep_frames = keep_frames
        self._running: list[tuple[nn.Module, Place | None]] = []
        self._calls: Counter[str] = Counter()
        self._handles: list[Any] = []
        self.frames: deque[Frame] = deque(maxlen=_FRAMES_KEPT)

    def __enter__(self) -> ModuleStack:
        self._handles = [
            hooks.register_module_forward_pre_hook(self._enter_module),
            hooks.register_module_forward_hook(self._leave_module, always_call=True),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._running = []

    @property
    def place(self) -> Place | None:
        """The innermost running module of the model, or None outside any."""
        return next((place for _, place in reversed(self._running) if place), None)

    def _enter_module(self, module: nn.Module, _inputs: Any) -> None:
        name = self._target.module_name(module)
        place = None
        if name is not None and self._in_backward():
            place = Place(name, RECOMPUTE, type(module).__name__)
        elif name is not None:
            self._calls[name] += 1
            place = Place(name, self._calls[name], type(module).__name__)
        self._running.append((module, place))

    def _leave_module(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        # An exception inside may have left deeper modules on the stack.
        place = None
        while self._running:
            left, place = self._running.pop()
            if left is module:
                break
        if self._keep_frames and place is not None:
            tensor = next((t for t in plain_tensors(output) if _has_values(t)), None)
            if tensor is not None:
                stats = self._quietly(lambda: tensor_stats(tensor, "output"))
                self.frames.append(Frame(place.module, place.call, place.kind, stats))


def _has_values(tensor: Tensor) -> bool:
    return isinstance(tensor, torch.Tensor) and (tensor.is_floating_point() or tensor.is_complex())
