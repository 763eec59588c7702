"""Calls of torch functions above autograd: which one runs now, and where the user wrote it.

Below autograd one sees aten operations; what a user writes, and what a remedy can change so
that forward and backward change together, are calls such as `torch.log(x)` or `x / y`. A
`TorchFunctionMode` sees each of them, and not what they call themselves.
"""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode, resolve_name

from nanhunt.core.where import CALL_STEP, kind_of

_MODULES = os.path.join("torch", "nn", "modules") + os.sep
_DEVICES = ("cpu", "cuda", "mps", "xpu")


class Site(NamedTuple):
    """A place in the program that calls a torch function.

    Attributes:
        code: code object of the innermost user frame.
        position: index of the instruction in it that made the call.
        function: the torch function.
        module: qualified name of the running module when one of torch's own modules makes the
            call (`self.linear(x)`): then the same line may stand for many; else None.
    """

    code: CodeType
    position: int
    function: Any
    module: str | None


class Call(NamedTuple):
    """One call of a torch function.

    Attributes:
        site: where the user wrote it; None where no user code did.
        function: the torch function.
        autocast: (device type, dtype) if autocast was on, else None.
    """

    site: Site | None
    function: Any
    autocast: tuple[str, torch.dtype] | None

    @property
    def name(self) -> str:
        """The function's public name, e.g. `torch.Tensor.log`."""
        return str(resolve_name(self.function) or getattr(self.function, "__name__", "?"))


class CallWatch(TorchFunctionMode):
    """Knows the outermost torch function that is running.

    Args:
        module_now: tells the qualified name of the running module, or None.
    """

    def __init__(self, module_now: Any) -> None:
        super().__init__()
        self._module_now = module_now
        self.current: Call | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_attribute(func):
            return func(*args, **kwargs)
        if func is torch.Tensor.backward:
            return run_backward(self, *args, **kwargs)
        outer, self.current = self.current, call_now(func, sys._getframe(1), self._module_now())
        try:
            return func(*args, **kwargs)
        finally:
            self.current = outer


def run_backward(
    mode: TorchFunctionMode,
    tensor: torch.Tensor,
    gradient: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """`tensor.backward()` with the mode on: activation checkpointing calls functions again."""
    TorchFunctionMode.__enter__(mode)  # not the subclass's own, which may install more
    try:
        torch.autograd.backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)
    finally:
        TorchFunctionMode.__exit__(mode, None, None, None)


def is_attribute(func: Any) -> bool:
    """Whether this is the reading or writing of an attribute such as `x.shape`."""
    return getattr(func, "__name__", "") in ("__get__", "__set__", "__delete__")


def call_now(func: Any, frame: FrameType | None, module: str | None) -> Call:
    """Describes the call of `func` that was made from `frame`."""
    return Call(_site(func, frame, module), func, autocast_now())


def autocast_now() -> tuple[str, torch.dtype] | None:
    """The device type and dtype of the autocast that is on, the accelerator's first."""
    for device in reversed(_DEVICES):
        if torch.is_autocast_enabled(device):
            return device, torch.get_autocast_dtype(device)
    return None


def _site(func: Any, frame: FrameType | None, module: str | None) -> Site | None:
    through_module = False
    while frame is not None:
        code = frame.f_code
        kind = kind_of(code.co_filename)
        if kind == "user":
            return Site(code, frame.f_lasti, func, module if through_module else None)
        if kind == "own" and code.co_name == CALL_STEP:
            return None
        through_module |= _MODULES in code.co_filename
        frame = frame.f_back
    return None
