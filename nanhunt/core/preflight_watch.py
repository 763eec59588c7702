"""What a preflight observes during its one step."""

from __future__ import annotations

import dis
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nanhunt.core.modules import ModuleStack
from nanhunt.core.observe import Activity
from nanhunt.core.opargs import flat, named_tensors
from nanhunt.core.stats import dtype_name, plain_tensors, tensor_stats
from nanhunt.core.target import Target
from nanhunt.core.where import Stack, is_user_code, source_of
from nanhunt.facts import HalfBirth, ModuleFacts, Region
from nanhunt.report import Source

_CONVERSIONS = ("to", "cuda", "cpu", "half", "float", "double", "bfloat16")


class Census(ModuleStack):
    """The stack of running modules, noting dtype and size of what each returns."""

    def __init__(self, target: Target, activity: Activity, quietly: Callable[..., Any]) -> None:
        super().__init__(target, activity.in_backward, quietly)
        self.dtypes: dict[str, Counter[str]] = {}
        self.kinds: dict[str, str] = {}
        self.worst: dict[str, tuple[float, float | None]] = {}

    def _note_output(self, output: Any) -> None:
        place = self._running[-1]
        if place is None:
            return
        self.kinds[place.module] = place.kind
        counts = self.dtypes.setdefault(place.module, Counter())
        for tensor in plain_tensors(output):
            counts[dtype_name(tensor.dtype)] += 1
            stats = self._quietly(partial(tensor_stats, tensor, "output"))
            if stats.headroom is not None:
                now = (stats.headroom, stats.absmax)
                before = self.worst.get(place.module)
                self.worst[place.module] = now if before is None else min(before, now)

    def facts(self) -> tuple[ModuleFacts, ...]:
        """Every module that ran, the least headroom first."""
        rows = []
        for name, counts in self.dtypes.items():
            headroom, absmax = self.worst.get(name, (None, None))
            rows.append(ModuleFacts(name, self.kinds[name], dict(counts), absmax, headroom))
        return tuple(sorted(rows, key=lambda m: (m.headroom is None, m.headroom or 0.0)))


class Watch(TorchDispatchMode):
    """Sees every operation; which parameters each value came from, by its memory."""

    def __init__(self, target: Target, activity: Activity) -> None:
        super().__init__()
        self.activity = activity
        self.census = Census(target, activity, self.quietly)
        self.births: list[HalfBirth] = []
        self.cuts: list[tuple[frozenset[str], Source]] = []
        self.read: set[str] = set()
        self.regions: Counter[tuple[str, str, bool, Source | None]] = Counter()
        self.thrown_away: dict[Source, str] = {}
        self._names = {id(p): name for name, p in target.parameters.items()}
        self._origins: dict[int, frozenset[str]] = {}
        self._quiet = False
        self._undo: list[Callable[[], None]] = []

    def quietly(self, function: Callable[[], Any]) -> Any:
        """Calls a function without observing what it does."""
        before, self._quiet = self._quiet, True
        try:
            return function()
        finally:
            self._quiet = before

    def __enter__(self) -> Watch:
        self.census.__enter__()
        self._patch_autocast()
        for name in _CONVERSIONS:
            self._patch_conversion(name)
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        while self._undo:
            self._undo.pop()()
        self.census.__exit__(*exc)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self._quiet and not self.activity.in_backward() and not self.activity.optimizer:
            self._note(func, [a.tensor for a in named_tensors(func, args, kwargs)], out)
        return out

    def _note(self, func: Any, inputs: list[Tensor], out: Any) -> None:
        origins: frozenset[str] = frozenset()
        for tensor in inputs:
            name = self._names.get(id(tensor))
            if name is not None:
                self.read.add(name)
                origins |= {name}
            origins |= self._origins.get(_memory(tensor), frozenset())
        outputs = [tensor for _, tensor in flat(out)]
        detached = func.overloadpacket in (torch.ops.aten.detach, torch.ops.aten.detach_)
        if origins and (detached or not torch.is_grad_enabled()):
            source = _source(sys._getframe(2))
            if source is not None:
                self.cuts.append((origins, source))
        for tensor in outputs:
            self._origins[_memory(tensor)] = origins
        if any(t.dtype == torch.complex32 for t in outputs) and not any(
            t.dtype == torch.complex32 for t in inputs
        ):
            place = self.census.place
            module = place.module if place else None
            self.births.append(HalfBirth(str(func), module, _source(sys._getframe(2))))

    def _patch_autocast(self) -> None:
        owner = torch.amp.autocast_mode.autocast
        original = owner.__enter__
        watch = self

        def __enter__(region: Any) -> Any:  # noqa: N807
            key = (
                region.device,
                dtype_name(region.fast_dtype),
                bool(region._enabled),
                _source(sys._getframe(1)),
            )
            watch.regions[key] += 1
            return original(region)

        owner.__enter__ = __enter__  # type: ignore[method-assign]
        self._undo.append(lambda: setattr(owner, "__enter__", original))

    def _patch_conversion(self, name: str) -> None:
        original = getattr(Tensor, name)
        own = name in Tensor.__dict__
        watch = self

        def convert(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            frame = sys._getframe(1)
            if is_user_code(frame.f_code.co_filename) and _thrown_away(frame):
                watch.thrown_away[source_of((frame.f_code, frame.f_lineno))] = name
            return original(tensor, *args, **kwargs)

        setattr(Tensor, name, convert)
        self._undo.append(
            (lambda: setattr(Tensor, name, original)) if own else lambda: delattr(Tensor, name)
        )

    def autocast(self) -> tuple[Region, ...]:
        """The regions that were entered, in the order of their first entry."""
        return tuple(
            Region(device, dtype, on, count, source)
            for (device, dtype, on, source), count in self.regions.items()
        )


def _thrown_away(frame: FrameType) -> bool:
    """Whether the call that a frame is in the middle of is followed by POP_TOP."""
    following = False
    for instruction in dis.get_instructions(frame.f_code):
        if following and instruction.opname != "CACHE":
            return instruction.opname == "POP_TOP"
        following |= instruction.offset == frame.f_lasti
    return False


def _source(frame: FrameType | None) -> Source | None:
    lines = Stack(frame).lines
    return source_of(lines[0]) if lines else None


def _memory(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr() or id(tensor)
    except (RuntimeError, NotImplementedError):  # sparse tensors have no storage of their own
        return id(tensor)
