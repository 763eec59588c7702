"""Op-level observation of one step: which operations put NaN and Inf where, and from what.

A `TorchDispatchMode` sees every aten operation below autograd, forward and backward. Only
operations with a bad output are kept. Autograd numbers its nodes in order of creation; the
number at the time of a forward operation links it with the node that later runs its backward.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nanhunt.core import optable
from nanhunt.core.modules import RECOMPUTE, ModuleStack, Place
from nanhunt.core.stats import count_bad, tensor_stats
from nanhunt.core.storage import Region, Storages
from nanhunt.core.target import Target
from nanhunt.core.where import Stack
from nanhunt.report import Frame, TensorStats

_T = TypeVar("_T")
_MAX_BIRTHS = 32
_REINTERPRETS = frozenset({"aten.as_strided", "aten.view.dtype", "aten.set_"})


class Activity:
    """What the step is doing now; the sentinel's patches keep it up to date."""

    def __init__(self) -> None:
        self.backward = 0
        self.optimizer = 0

    def in_backward(self) -> bool:
        """Whether the autograd engine is running."""
        return self.backward > 0 or torch._C._current_autograd_node() is not None


class Value(NamedTuple):
    """One tensor as one operation saw it.

    Attributes:
        name: the argument's name in the schema, or `output`.
        item: its index in an argument that is a list of tensors, else None.
        region: its memory.
        nan, posinf, neginf: exact counts.
        numel: number of elements.
        argument: position of the argument, or -1 for an output that is not one.
    """

    name: str
    item: int | None
    region: Region | None
    nan: int
    posinf: int
    neginf: int
    numel: int
    argument: int = -1

    @property
    def inf(self) -> int:
        """Elements of either infinite sign."""
        return self.posinf + self.neginf

    @property
    def bad(self) -> bool:
        """Whether any element is not finite."""
        return bool(self.nan or self.posinf or self.neginf)


@dataclasses.dataclass(frozen=True)
class Context:
    """Where an operation ran."""

    phase: str
    place: Place | None
    node: str | None
    stack: Stack
    forward: ForwardOp | None


@dataclasses.dataclass(frozen=True)
class ForwardOp:
    """The forward operation that made an autograd node."""

    index: int
    op: str
    place: Place | None
    stack: Stack


@dataclasses.dataclass(frozen=True)
class OpRecord:
    """One operation with a bad output (or that swallowed a bad input, or failed on one)."""

    index: int
    op: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    context: Context
    constant: bool
    training: bool

    @property
    def packet(self) -> str:
        """The operation without its overload."""
        return optable.packet(self.op)


@dataclasses.dataclass(frozen=True)
class Birth:
    """An operation that made complex32 out of something else."""

    record: OpRecord
    inputs: tuple[TensorStats, ...]
    outputs: tuple[TensorStats, ...]
    frames: tuple[Frame, ...]


@dataclasses.dataclass
class Detail:
    """What a second observation is to note about one operation, and what it saw.

    Attributes:
        index, op: the operation, by its number in the step and its name.
        frames_at: number of the operation whose preceding modules are to be shown.
    """

    index: int
    op: str
    frames_at: int
    inputs: tuple[TensorStats, ...] = ()
    outputs: tuple[TensorStats, ...] = ()
    frames: tuple[Frame, ...] = ()
    seen: bool = False


class Observer(TorchDispatchMode):
    """Watches every operation between `__enter__` and `__exit__`.

    Args:
        target: the model, for names.
        activity: what the step is doing.
        detail: an operation to be described in full, if any.
    """

    def __init__(self, target: Target, activity: Activity, detail: Detail | None = None) -> None:
        super().__init__()
        self.activity = activity
        self.detail = detail
        self.storages = Storages()
        self._target = target
        self.modules = ModuleStack(target, activity.in_backward, self.quietly, keep_frames=True)
        self.count = 0
        self.records: list[OpRecord] = []
        self.swallowed: list[OpRecord] = []
        self.decisions: list[OpRecord] = []
        self.births: list[Birth] = []
        self.failed: OpRecord | None = None
        self.clears: list[tuple[int, Region]] = []
        self._tainted: set[int] = set()
        self._forward: dict[int, ForwardOp] = {}
        self._writes: dict[int, int] = defaultdict(int)
        self._known: dict[Any, tuple[int, int, int]] = {}
        self._quiet = False

    def __enter__(self) -> Observer:
        self.modules.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        self.modules.__exit__(*exc)

    def quietly(self, function: Callable[[], _T]) -> _T:
        """Calls a function without observing what it does."""
        before, self._quiet = self._quiet, True
        try:
            return function()
        finally:
            self._quiet = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._quiet:
            return func(*args, **kwargs)
        index = self.count
        self.count += 1
        op = str(func)
        named = list(_named_tensors(func, args, kwargs))
        inputs = [self._value(tensor, name, item, pos) for name, item, pos, tensor in named]
        context = self._register_forward(index, op)
        detail = self.detail if self.detail and self.detail.index == index else None
        if self.detail and self.detail.frames_at == index:
            self.detail.frames = tuple(self.modules.frames)
        if detail:
            detail.inputs = tuple(tensor_stats(tensor, name) for name, _, _, tensor in named)
        try:
            out = func(*args, **kwargs)
        except Exception:
            if any(value.bad for value in inputs):
                self.failed = self._record(index, op, func, args, inputs, [], context)
            raise
        results = self._outputs(func, out, named, inputs)
        if detail:
            detail.seen = detail.op == op
            detail.outputs = tuple(tensor_stats(tensor, value.name) for tensor, value in results)
        self._keep(index, op, func, args, inputs, results, context, named)
        return out

    def _keep(
        self,
        index: int,
        op: str,
        func: Any,
        args: Any,
        inputs: list[Value],
        results: list[tuple[Tensor, Value]],
        context: Stack | None,
        named: list[tuple[str, int | None, int, Tensor]],
    ) -> None:
        outputs = [value for _, value in results]
        bad_in = any(value.bad for value in inputs)
        self._note_writes(index, results)
        if any(value.bad for value in outputs):
            self.records.append(self._record(index, op, func, args, inputs, outputs, context))
        elif bad_in and _swallows(op, inputs):
            self.swallowed.append(self._record(index, op, func, args, inputs, outputs, context))
        if bad_in and optable.packet(op) in optable.PREDICATES | optable.PREDICATE_PARTS:
            self.decisions.append(self._record(index, op, func, args, inputs, outputs, context))
        if len(self.births) < _MAX_BIRTHS and _is_birth(named, results):
            record = self._record(index, op, func, args, inputs, outputs, context)
            if record.context.phase == "forward":
                self.births.append(
                    Birth(
                        record,
                        tuple(tensor_stats(t, name) for name, _, _, t in named),
                        tuple(tensor_stats(t, value.name) for t, value in results),
                        tuple(self.modules.frames),
                    )
                )

    def _note_writes(self, index: int, results: list[tuple[Tensor, Value]]) -> None:
        """Notes memory that became bad, and bad memory that was overwritten as a whole."""
        for tensor, value in results:
            if value.region is None:
                continue
            if value.bad:
                self._tainted.add(value.region.key)
            elif (
                value.argument >= 0
                and value.region.key in self._tainted
                and value.region.end - value.region.start == tensor.numel() * tensor.itemsize
            ):
                self.clears.append((index, value.region))

    def _register_forward(self, index: int, op: str) -> Stack | None:
        """Links the autograd node just created with this operation."""
        node = torch._C._current_autograd_node()
        if self.activity.in_backward() and not torch.is_grad_enabled():
            return None
        stack = Stack(sys._getframe(2))
        number = torch._C._autograd._get_sequence_nr() - 1
        forward = ForwardOp(index, op, self.modules.place, stack)
        if node is not None and not stack.recompute:
            # A backward that is itself differentiated: its nodes belong to the forward line.
            forward = self._forward.get(node._sequence_nr(), forward)
        self._forward.setdefault(number, forward)
        return stack

    def _record(
        self,
        index: int,
        op: str,
        func: Any,
        args: Any,
        inputs: list[Value],
        outputs: list[Value],
        stack: Stack | None,
    ) -> OpRecord:
        return OpRecord(
            index=index,
            op=op,
            inputs=tuple(value for value in inputs if value.bad),
            outputs=tuple(value for value in outputs if value.bad),
            context=self._context(stack or Stack(sys._getframe(2)), inputs),
            constant=optable.packet(op) in optable.WRITES_CONSTANTS or _bad_scalar(args),
            training=_training_flag(optable.packet(op), args),
        )

    def _context(self, stack: Stack, inputs: list[Value]) -> Context:
        node = torch._C._current_autograd_node()
        place = self.modules.place
        forward = None
        if stack.recompute:
            phase = "backward"
            if place is not None:
                place = place._replace(call=RECOMPUTE)
        elif self.activity.in_backward():
            phase = "backward"
            forward = self._forward.get(node._sequence_nr()) if node is not None else None
            place = forward.place if forward else place
        elif self.activity.optimizer or stack.update or self._reads_gradients(inputs):
            phase = "optimizer"
        else:
            phase = "forward"
        return Context(phase, place, node.name() if node else None, stack, forward)

    def _reads_gradients(self, inputs: list[Value]) -> bool:
        """Whether an operation uses a parameter's gradient, as an update by hand does."""
        grads = [p.grad for p in self._target.parameters.values() if p.grad is not None]
        regions = [self.storages.region(grad) for grad in grads]
        keys = {region.key for region in regions if region is not None}
        return any(value.region is not None and value.region.key in keys for value in inputs)

    def _outputs(
        self,
        func: Any,
        out: Any,
        named: list[tuple[str, int | None, int, Tensor]],
        inputs: list[Value],
    ) -> list[tuple[Tensor, Value]]:
        packet = optable.packet(str(func))
        hidden = optable.HIDDEN_WRITES.get(packet, ())
        written = _written_arguments(func) | set(hidden)
        results: list[tuple[Tensor, str, int | None, int]] = []
        seen = set()
        for name, item, position, tensor in named:
            if position in written:
                seen.add(id(tensor))
                results.append((tensor, f"{name} after", item, position))
                region = self.storages.region(tensor)
                if region:
                    self._writes[region.key] += 1
        for number, (item, tensor) in enumerate(_flat(out)):
            if id(tensor) not in seen:
                results.append((tensor, f"output {number}" if number else "output", item, -1))
        clean_view = (
            not written
            and bool(func._schema.returns)
            and func._schema.returns[0].alias_info is not None
            and not any(value.bad for value in inputs)
            and packet not in _REINTERPRETS
            and str(func) not in _REINTERPRETS
        )
        return [
            (tensor, self._value(tensor, name, item, position, clean_view))
            for tensor, name, item, position in results
        ]

    def _value(
        self, tensor: Tensor, name: str, item: int | None, position: int, clean: bool = False
    ) -> Value:
        region = self.storages.region(tensor)
        if region is None or not (tensor.is_floating_point() or tensor.is_complex()):
            return Value(name, item, region, 0, 0, 0, 0, position)
        writes = self._writes[region.key]
        strides = tensor.stride() if tensor.layout == torch.strided else ()
        key = (region, writes, tensor.dtype, tuple(tensor.shape), strides)
        counts = self._known.get(key)
        if counts is None:
            counts = (0, 0, 0) if clean else count_bad(tensor)
            self._known[key] = counts
        return Value(name, item, region, *counts, tensor.numel(), position)


def _named_tensors(
    func: Any, args: Any, kwargs: Any
) -> Iterator[tuple[str, int | None, int, Tensor]]:
    """Yields (argument name, index in a list argument, position, tensor)."""
    for position, argument in enumerate(func._schema.arguments):
        if position < len(args):
            value = args[position]
        elif argument.name in kwargs:
            value = kwargs[argument.name]
        else:
            continue
        for item, tensor in _flat(value):
            yield argument.name, item, position, tensor


def _flat(value: Any) -> Iterator[tuple[int | None, Tensor]]:
    if isinstance(value, Tensor):
        yield None, value
    elif isinstance(value, list | tuple):
        for item, element in enumerate(value):
            if isinstance(element, Tensor):
                yield item, element
            elif isinstance(element, list | tuple):
                yield from ((item, tensor) for _, tensor in _flat(element))


_WRITTEN: dict[Any, frozenset[int]] = {}


def _written_arguments(func: Any) -> frozenset[int]:
    if func not in _WRITTEN:
        _WRITTEN[func] = frozenset(
            position
            for position, argument in enumerate(func._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        )
    return _WRITTEN[func]


def _bad_scalar(args: Any) -> bool:
    return any(isinstance(value, float) and not math.isfinite(value) for value in args)


def _training_flag(packet: str, args: Any) -> bool:
    position = optable.BATCH_NORMS.get(packet, (0, 0, None))[2]
    return packet in optable.BATCH_NORMS and (position is None or bool(args[position]))


def _is_birth(
    named: list[tuple[str, int | None, int, Tensor]], results: list[tuple[Tensor, Value]]
) -> bool:
    if not any(tensor.dtype == torch.complex32 for tensor, _ in results):
        return False
    return not any(tensor.dtype == torch.complex32 for *_, tensor in named)


def _swallows(op: str, inputs: list[Value]) -> bool:
    packet = optable.packet(op)
    if packet in ("aten.div", "aten.div_"):
        return any(value.name == "other" and value.inf for value in inputs)
    return packet in optable.SWALLOWS_OVERFLOW and any(value.inf for value in inputs)
