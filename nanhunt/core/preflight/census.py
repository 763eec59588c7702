"""Counts what one step is made of: dtypes, autocast regions, casts, detached parameters."""

from __future__ import annotations

import dis
import functools
import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nanhunt.core.attached.patches import PATCHED_CALL, patch
from nanhunt.core.observe import op_table
from nanhunt.core.observe.op_arguments import flat
from nanhunt.core.program.casts import MOVES, TO_HALF
from nanhunt.core.program.module_stack import ModuleStack, Place
from nanhunt.core.program.source_lines import CALL_STEP, Line, kind_of
from nanhunt.core.program.target import Target
from nanhunt.core.program.torch_calls import autocast_now
from nanhunt.core.tensors.dtypes import HALVES, dtype_name
from nanhunt.core.tensors.stats import is_bad, plain_tensors, tensor_stats
from nanhunt.records.report import TensorStats
from nanhunt.torch_private import TorchDispatchMode, autocast_enabled, current_node

_NOT_COMPUTED = op_table.UNINITIALISED | op_table.WRITES_CONSTANTS | op_table.LITERALS
_GRAPH_NODES = 20_000
OUTSIDE = "(outside the model)"


class HalfResult(NamedTuple):
    """The result in half precision that came closest to overflow in a module.

    Attributes:
        headroom: powers of two to the dtype's limit; -1 when something is not finite.
        stats: the result, named by its operation.
        line: the user's line.
    """

    headroom: float
    stats: TensorStats
    line: Line | None


Region = tuple[str, str, bool, Line | None]


class OpCensus(TorchDispatchMode):
    """Counts the dtypes of results per module, and notes where ComplexHalf is made."""

    def __init__(self, modules: ModuleStack) -> None:
        super().__init__()
        self._modules = modules
        self.quiet = False
        self.dtypes: dict[str, Counter[str]] = {}
        self.closest: dict[str, HalfResult] = {}
        self.births: dict[tuple[str, Line | None], str | None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.quiet or current_node() is not None:
            return out
        place = self._modules.place
        results = [t for _, t in flat(out) if t.is_floating_point() or t.is_complex()]
        if place is not None:
            counter = self.dtypes.setdefault(place.module, Counter())
            counter.update(dtype_name(tensor.dtype) for tensor in results)
        if op_table.packet(str(func)) not in _NOT_COMPUTED:
            written = {id(tensor) for tensor in results}
            given = [t for value in args for _, t in flat(value) if id(t) not in written]
            for tensor in results:
                if tensor.dtype in HALVES:
                    self._note_half(str(func), tensor, given, place.module if place else OUTSIDE)
        if any(tensor.dtype == torch.complex32 for tensor in results):
            given = [t for value in args for _, t in flat(value)]
            if not any(tensor.dtype == torch.complex32 for tensor in given):
                line = user_line(sys._getframe(1))
                self.births.setdefault((str(func), line), place.module if place else None)
        return out

    def _note_half(self, op: str, tensor: Tensor, given: list[Tensor], module: str) -> None:
        stats = tensor_stats(tensor, op)
        if stats.headroom is None and not stats.bad:
            return
        if stats.bad and any(map(is_bad, given)):
            return  # it only passes on what came in
        headroom = -1.0 if stats.bad else float(stats.headroom or 0.0)
        known = self.closest.get(module)
        if known is None or headroom < known.headroom:
            line = user_line(sys._getframe(2))
            self.closest[module] = HalfResult(headroom, stats, line)


class CallCensus(TorchFunctionMode):
    """Notes results thrown away, and where parameters leave the graph.

    Attributes:
        casts: (function name, line) of casts to half precision written in the program.
        thrown_away: (function name, line) of calls such as `x.to(device)` on their own.
        detached: per parameter (by identity), the line that cut it off from what follows.
        without_grad: per parameter, the line that used it while gradients were off.
        used: parameters that any function was given, to compute something with them.
    """

    def __init__(self, target: Target, modules: ModuleStack) -> None:
        super().__init__()
        self._modules = modules
        self._mine = {id(p): p for p in target.parameters.values()}
        self.quiet = False
        self.casts: dict[tuple[str, Line], None] = {}
        self.thrown_away: dict[tuple[str, Line], None] = {}
        self.detached: dict[int, Line] = {}
        self.without_grad: dict[int, Line] = {}
        self.used: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        frame = sys._getframe(1)
        if self.quiet or not _is_of_the_model(frame):
            return func(*args, **kwargs)
        if name == "__get__":
            if args and func == torch.Tensor.data.__get__:  # type: ignore[attr-defined]
                self._cut(args[0], frame)
            return func(*args, **kwargs)
        given = plain_tensors([list(args), kwargs], depth=3)
        for tensor in given:
            self._use(tensor, given, frame)
        if args and name in ("detach", "item", "tolist", "numpy", "detach_"):
            self._cut(args[0], frame)
        if name in MOVES:
            self._note_if_thrown_away(name, frame)
            to_half = name in TO_HALF or any(a in HALVES for a in args[1:])
            line = user_line(frame)
            if (to_half or kwargs.get("dtype") in HALVES) and line is not None:
                self.casts.setdefault((name, line))
        return func(*args, **kwargs)

    def _use(self, tensor: Tensor, given: Sequence[Tensor], frame: FrameType) -> None:
        key = id(tensor)
        if key not in self._mine or self._only_looks(tensor, given):
            return
        self.used.add(key)
        if tensor.requires_grad and not torch.is_grad_enabled():
            line = user_line(frame)
            if line is not None:
                self.without_grad.setdefault(key, line)

    def _only_looks(self, tensor: Tensor, given: Sequence[Tensor]) -> bool:
        """Whether a call logs a parameter, measures it or takes a running average.

        It stands outside of the model, gradients are off, and no data go in with the parameter:
        nothing that is no parameter, or what has its shape, as its averages and older values do.
        """
        if torch.is_grad_enabled() or self._modules.place is not None:
            return False
        return all(
            id(other) in self._mine or other.shape == tensor.shape or other.numel() == 1
            for other in given
        )

    def _cut(self, value: Any, frame: FrameType) -> None:
        line = user_line(frame)
        if not isinstance(value, Tensor) or value.grad_fn is None or line is None:
            return  # a parameter that is copied or logged is not cut off by that
        for parameter in leaves(value):
            if id(parameter) in self._mine:
                self.detached.setdefault(id(parameter), line)

    def _note_if_thrown_away(self, name: str, frame: FrameType) -> None:
        caller: FrameType | None = frame
        while caller is not None and kind_of(caller.f_code.co_filename) in ("own", "torch"):
            if "nn/modules" in caller.f_code.co_filename.replace("\\", "/"):
                return
            caller = caller.f_back
        if caller is None or kind_of(caller.f_code.co_filename) != "user":
            return
        if caller.f_lasti in _discarding(caller.f_code):
            self.thrown_away.setdefault((name, (caller.f_code, caller.f_lineno)))


class AutocastCensus:
    """Counts the autocast regions that are entered, with the line that enters each."""

    def __init__(self) -> None:
        self.regions: Counter[Region] = Counter()

    def __enter__(self) -> AutocastCensus:
        on = autocast_now()
        if on is not None:
            self.regions[on[0], dtype_name(on[1]), True, None] += 1
        self._take_off = patch(torch.autocast, "__enter__", self._noted)
        return self

    def __exit__(self, *_: object) -> None:
        self._take_off()

    def _noted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def __enter__(region: Any) -> Any:  # noqa: N807
            result = original(region)
            line = user_line(sys._getframe(1))
            # Activation checkpointing enters the region again in its second pass.
            if line is not None and current_node() is None:
                dtype = dtype_name(region.fast_dtype)
                self.regions[region.device, dtype, autocast_enabled(region), line] += 1
            return result

        return __enter__


class OutputCensus:
    """Keeps the largest output of each module; called by a `ModuleStack`."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self.outputs: dict[str, TensorStats] = {}

    def note(self, place: Place, output: Any) -> None:
        """Called with each module's output."""
        self.kinds.setdefault(place.module, place.kind)
        self.calls[place.module] += 1
        for tensor in plain_tensors(output):
            if not (tensor.is_floating_point() or tensor.is_complex()):
                continue
            stats = tensor_stats(tensor, place.module)
            known = self.outputs.get(place.module)
            if known is None or (stats.headroom or 1e9) < (known.headroom or 1e9):
                self.outputs[place.module] = stats


def leaves(tensor: Tensor) -> Iterator[Tensor]:
    """The leaf tensors that a tensor's graph goes back to (the first 20,000 nodes of it)."""
    if tensor.grad_fn is None:
        if tensor.requires_grad:
            yield tensor
        return
    waiting, seen = [tensor.grad_fn], {tensor.grad_fn}
    while waiting and len(seen) < _GRAPH_NODES:
        node = waiting.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            yield variable
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def _is_of_the_model(frame: FrameType | None) -> bool:
    """Whether a call belongs to the step's computation, not to an optimizer or to nanhunt."""
    while frame is not None:
        name = frame.f_code.co_filename
        kind = kind_of(name)
        if kind == "update" or f"torch{os.sep}optim{os.sep}" in name:
            return False
        if kind == "user":
            return True
        if kind == "own" and frame.f_code.co_name not in ("__call__", PATCHED_CALL):  # of modules
            return False
        frame = frame.f_back
    return False


def user_line(frame: FrameType | None) -> Line | None:
    """The innermost line of the user's code."""
    while frame is not None:
        kind = kind_of(frame.f_code.co_filename)
        if kind == "user":
            return frame.f_code, frame.f_lineno
        if kind == "own" and frame.f_code.co_name == CALL_STEP:
            return None
        frame = frame.f_back
    return None


@functools.lru_cache(maxsize=4096)
def _discarding(code: CodeType) -> frozenset[int]:
    """Offsets of the calls in a function whose result is dropped at once."""
    instructions = list(dis.get_instructions(code))
    return frozenset(
        offset
        for call, following in itertools.pairwise(instructions)
        if call.opname.startswith("CALL") and following.opname == "POP_TOP"
        # A frame stands at the call or, from Python 3.11 on, at one of the caches behind it.
        for offset in range(call.offset, following.offset)
    )
