"""Calls of torch functions above autograd: which one runs now, and where the user wrote it.

Below autograd one sees aten operations; what a user writes, and what a remedy can change so
that forward and backward change together, are calls such as `torch.log(x)` or `x / y`. A
`TorchFunctionMode` sees each of them, and not what they call themselves.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode, resolve_name

from nanhunt.core.attached.patches import patch
from nanhunt.core.program.source_lines import CALL_STEP, kind_of, passes_on
from nanhunt.core.tensors.devices import COMMON_AUTOCAST
from nanhunt.torch_private import ENGINE

if TYPE_CHECKING:
    from typing_extensions import Self

_MODULES = os.path.join("torch", "nn", "modules") + os.sep


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


class CallMode(TorchFunctionMode):
    """A function mode that stays on inside `backward()`.

    While a mode handles a function it is off, and so during all of `loss.backward()`; but there
    activation checkpointing calls the model's functions a second time, and they must be treated
    as they were the first time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._handling = 0

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Called for each torch function."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._take_off = patch(torch.autograd, ENGINE, self._on_inside)
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        self._take_off()

    def _on_inside(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def run_engine(*args: Any, **kwargs: Any) -> Any:
            if not self._handling:
                return original(*args, **kwargs)
            TorchFunctionMode.__enter__(self)
            try:
                return original(*args, **kwargs)
            finally:
                TorchFunctionMode.__exit__(self, None, None, None)

        return run_engine

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("__get__", "__set__", "__delete__"):
            return func(*args, **kwargs)  # an attribute such as `x.shape`
        self._handling += 1
        try:
            return self.handle(func, args, kwargs)
        finally:
            self._handling -= 1


class RunningCallMode(CallMode):
    """Knows the outermost torch function that is running.

    Args:
        module_now: tells the qualified name of the running module, or None.
    """

    def __init__(self, module_now: Callable[[], str | None]) -> None:
        super().__init__()
        self._module_now = module_now
        self._let_alone = False
        self.current: Call | None = None

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Notes the call while it runs."""
        if self._let_alone:
            return func(*args, **kwargs)
        outer, self.current = self.current, call_now(func, sys._getframe(2), self._module_now())
        try:
            return func(*args, **kwargs)
        finally:
            self.current = outer

    @contextlib.contextmanager
    def let_alone(self) -> Iterator[None]:
        """Within it calls are not noted: an observed operation of a backward pass is run."""
        before, self._let_alone = self._let_alone, True
        try:
            yield
        finally:
            self._let_alone = before


def call_now(func: Any, frame: FrameType | None, module: str | None) -> Call:
    """Describes the call of `func` that was made from `frame`."""
    return Call(_site(func, frame, module), func, autocast_now())


def autocast_now() -> tuple[str, torch.dtype] | None:
    """The device type and dtype of the autocast that is on, the accelerator's first."""
    for device in reversed(COMMON_AUTOCAST):
        if torch.is_autocast_enabled(device):
            return device, torch.get_autocast_dtype(device)
    return None


def _site(func: Any, frame: FrameType | None, module: str | None) -> Site | None:
    through_module = False
    while frame is not None:
        code = frame.f_code
        kind = kind_of(code.co_filename)
        if kind == "user" and not passes_on((code, frame.f_lineno)):
            return Site(code, frame.f_lasti, func, module if through_module else None)
        if kind == "own" and code.co_name == CALL_STEP:
            return None
        through_module |= _MODULES in code.co_filename
        frame = frame.f_back
    return None
