"""Changing calls of torch functions while a step runs.

The change is made above autograd, so that forward and backward change together: healing the
output of an operation after the fact would leave its backward as it was.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.causes.scene import written_at
from nanhunt.core.program.casts import MAY_CAST_TO_HALF, TO_HALF
from nanhunt.core.program.module_stack import ModuleStack
from nanhunt.core.program.target import Target
from nanhunt.core.program.torch_calls import Call, CallMode, call_now
from nanhunt.core.tensors.devices import COMMON_AUTOCAST
from nanhunt.core.tensors.dtypes import WIDER
from nanhunt.torch_private import tree_map_only

Rewrite = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


class PatchedCalls(CallMode):
    """Rewrites the calls that `applies` picks.

    Args:
        target: the model, for module names.
        applies: whether to rewrite a call, given it and the running module's name.
        rewrite: calls the function in another way.

    Attributes:
        applied: how many calls were rewritten.
        halves: dtypes of the arguments that were half-precision tensors, by position.
        numbers: positions of the arguments that were plain numbers.
        casts: where it met casts written in the program.
        last: the last call that was rewritten.
    """

    def __init__(
        self, target: Target, applies: Callable[[Call, str | None], bool], rewrite: Rewrite
    ) -> None:
        super().__init__()
        self._modules = ModuleStack(target, lambda: False, lambda function: function())
        self._applies = applies
        self._rewrite = rewrite
        self.applied = 0
        self.halves: dict[int, torch.dtype] = {}
        self.numbers: set[int] = set()
        self.last: Call | None = None
        self.casts: dict[str, None] = {}

    def __enter__(self) -> PatchedCalls:
        with uninterrupted():
            self._modules.__enter__()
            super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        with uninterrupted():
            super().__exit__(*exc)
            self._modules.__exit__(*exc)

    def handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls the function, rewritten or as it is."""
        place = self._modules.place
        module = place.module if place else None
        call = call_now(func, sys._getframe(2), module)
        if call.site is None or not self._applies(call, module):
            return func(*args, **kwargs)
        self.applied += 1
        self.last = call
        if getattr(func, "__name__", "") in MAY_CAST_TO_HALF:
            self.casts.setdefault(_line(call))
        for position, value in enumerate(args):
            if isinstance(value, Tensor) and value.dtype in WIDER:
                self.halves[position] = value.dtype
            elif isinstance(value, int | float):
                self.numbers.add(position)
        return self._rewrite(func, args, kwargs)


def _line(call: Call) -> str:
    """Where a call stands, e.g. ` in `x = x.half()` (train.py:12)`."""
    if call.site is None:
        return ""
    position = list(call.site.code.co_lines())
    number = next(
        (line for start, end, line in position if start <= call.site.position < end), None
    )
    return written_at((call.site.code, number)) if number is not None else ""


def in_float32(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a function on single-precision copies of its half-precision arguments.

    A cast to half precision becomes a cast to single precision. What writes into its arguments
    is called as it is: its result must have their dtype.
    """
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    if in_place or kwargs.get("out") is not None:
        return func(*args, **kwargs)
    with without_autocast():
        if name in MAY_CAST_TO_HALF:
            return _cast(func, args, kwargs)
        if name == "batch_norm":
            return _batch_norm(func, args, kwargs)
        return func(*wider(args), **wider(kwargs))


def in_float32_and_back(dtype: torch.dtype | None) -> Rewrite:
    """Like `in_float32`, with the result cast back."""

    def rewrite(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def back(tensor: Tensor) -> Tensor:
            return tensor.to(dtype) if tensor.is_floating_point() or tensor.is_complex() else tensor

        return tree_map_only(Tensor, back, in_float32(func, args, kwargs))

    return rewrite


def changed_argument(position: int, change: Callable[[Any], Any]) -> Rewrite:
    """Calls a function with one argument changed; position 0 may be given as `input=`."""

    def rewrite(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if position < len(args):
            args = (*args[:position], change(args[position]), *args[position + 1 :])
        elif position == 0 and "input" in kwargs:
            kwargs = {**kwargs, "input": change(kwargs["input"])}
        elif position == 1 and "other" in kwargs:
            kwargs = {**kwargs, "other": change(kwargs["other"])}
        return func(*args, **kwargs)

    return rewrite


def wider(value: Any) -> Any:
    """Half-precision tensors inside a structure as single-precision ones."""

    def widen(tensor: Tensor) -> Tensor:
        dtype = WIDER.get(tensor.dtype)
        return tensor.to(dtype) if dtype is not None else tensor

    return tree_map_only(Tensor, widen, value)


@contextlib.contextmanager
def without_autocast() -> Any:
    """Autocast off on every device where it is on."""
    with contextlib.ExitStack() as stack:
        for device in COMMON_AUTOCAST:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _cast(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if getattr(func, "__name__", "") in TO_HALF:
        return args[0].float()
    args = tuple(WIDER.get(a, a) if isinstance(a, torch.dtype) else a for a in args)
    kwargs = {k: WIDER.get(v, v) if isinstance(v, torch.dtype) else v for k, v in kwargs.items()}
    return wider(func(*args, **kwargs))


def _batch_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A batch norm on wider copies of its statistics, which are then written back."""
    wide_args, wide_kwargs = wider(args), wider(kwargs)
    result = func(*wide_args, **wide_kwargs)
    pairs = [*zip(args, wide_args, strict=True), *((kwargs[k], wide_kwargs[k]) for k in kwargs)]
    with torch.no_grad():
        for original, wide in pairs[1:3]:  # running_mean and running_var follow the input
            if isinstance(original, Tensor) and wide is not original:
                original.copy_(wide)
    return result
