"""Follows a bad value back, operation by operation, to the first value that mattered.

Each operation with a bad output is a producer (no bad input of the kind it put out), or a
propagator. Starting at the sinks (a loss, a gradient, a buffer ...), bad inputs are followed
to the operation that wrote them, through views and in-place writes, until a producer or
something from outside the step is reached. A NaN is followed along NaN inputs; only where
there is none did the operation turn an Inf into NaN, and then the Inf is followed: if
arithmetic made it, that is the origin; if somebody wrote it (a mask), the operation that
turned it into NaN is. So is one that made +Inf of a mask's -Inf.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Generator
from typing import Literal

from nanhunt.core.observe import op_table
from nanhunt.core.observe.observer import Observer
from nanhunt.core.observe.op_records import OpRecord, Value
from nanhunt.core.tensors.storage import Region
from nanhunt.core.watch.step_facts import Sink

Kind = Literal["nan", "inf"]

_ARITHMETIC, _EXTERNAL, _CONSTANT, _UNINITIALISED = "arithmetic", "external", "constant", "memory"


_Output = tuple[Kind, OpRecord, Value]
# What finds origins asks for those of a bad output by yielding it, and is sent them.
_Search = Generator[_Output, frozenset["Origin"], frozenset["Origin"]]


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a bad value came from.

    Attributes:
        kind: `"nan"` or `"inf"`.
        source: how it came about (arithmetic, a written constant, memory, from outside).
        record: the operation that made it; for an external value, the one that read it.
        value: the bad output; for an external value, the bad input.
        masks: written infinities that the operation turned into NaN, or -Inf into +Inf.
        innocent: whether it is a legitimate mask.
    """

    kind: Kind
    source: str
    record: OpRecord | None
    value: Value | None
    masks: tuple[Origin, ...] = ()
    innocent: bool = False

    @property
    def external(self) -> bool:
        """Whether the value was already bad before the step touched it."""
        return self.source == _EXTERNAL

    @property
    def of_masks(self) -> bool:
        """Whether it is a +Inf made of a mask's -Inf, which is bad only where it does harm."""
        return self.kind == "inf" and bool(self.masks)

    @property
    def index(self) -> int:
        """Number of the operation; -1 for what was there before the step."""
        return -1 if self.external or self.record is None else self.record.index

    @property
    def order(self) -> tuple[int, int]:
        """What is reported first: guilt before innocence, early before late."""
        doubt = 2 if self.innocent else (1 if self.source == _UNINITIALISED else 0)
        return doubt, self.index


class Descent:
    """Follows bad values backward through one observed step.

    Args:
        observer: the observation.
        never_masks: storage keys that cannot hold a legitimate mask (parameters, statistics).
    """

    def __init__(self, observer: Observer, never_masks: frozenset[int]) -> None:
        self._never_masks = never_masks
        self._writers: dict[int, list[tuple[OpRecord, Value]]] = defaultdict(list)
        for record in observer.records:
            for value in record.outputs:
                if value.region is not None:
                    self._writers[value.region.key].append((record, value))
        self._clears: dict[int, list[tuple[int, Region]]] = defaultdict(list)
        for index, region in observer.clears:
            self._clears[region.key].append((index, region))
        self._known: dict[tuple[int, Value, Kind], frozenset[Origin]] = {}

    def of_sink(self, sink: Sink) -> list[Origin]:
        """All origins of a sink, the one to report first in front."""
        origins: set[Origin] = set()
        if sink.region is not None:
            for kind in _kinds(sink):
                origins |= self._found(self._of_memory(kind, sink.region, sink.index, None, None))
        return sorted(origins, key=lambda origin: origin.order)

    def of_inputs(self, record: OpRecord) -> list[Origin]:
        """Origins of an operation's bad inputs."""
        origins: set[Origin] = set()
        for value in record.inputs:
            for kind in _kinds(value):
                origins |= self._found(self._of_input(kind, value, record))
        return sorted(origins, key=lambda origin: origin.order)

    def _found(self, search: _Search) -> frozenset[Origin]:
        """Runs a search; those that it asks for wait on a list: chains of operations are long."""
        waiting: list[tuple[tuple[int, Value, Kind] | None, _Search]] = [(None, search)]
        answer: frozenset[Origin] | None = None
        while True:
            key, running = waiting[-1]
            try:
                wanted = next(running) if answer is None else running.send(answer)
            except StopIteration as done:
                found: frozenset[Origin] = done.value
                waiting.pop()
                if key is None:
                    return found
                self._known[key] = answer = found
                continue
            kind, record, value = wanted
            key = (record.index, value, kind)
            answer = self._known.get(key)
            if answer is None:
                waiting.append((key, self._explain(kind, record, value)))

    def _of_input(self, kind: Kind, value: Value, record: OpRecord) -> _Search:
        if value.region is None:
            return frozenset({self._external(kind, value, record)})
        if value.numel == 1 and self._is_literal(value.region):
            # A number in the program (`x[0] = nan`): the operation that uses it wrote it.
            mask = kind == "inf" and not value.posinf and not value.nan
            written = next(iter(record.outputs), value)
            return frozenset({Origin(kind, _CONSTANT, record, written, innocent=mask)})
        return (yield from self._of_memory(kind, value.region, record.index, record, value))

    def _of_inputs(self, kind: Kind, values: list[Value], record: OpRecord) -> _Search:
        origins: set[Origin] = set()
        for value in values:
            origins |= yield from self._of_input(kind, value, record)
        return frozenset(origins)

    def _is_literal(self, region: Region) -> bool:
        writers = self._writers.get(region.key, [])
        return bool(writers) and writers[0][0].packet in op_table.LITERALS

    def _of_memory(
        self,
        kind: Kind,
        region: Region,
        before: int,
        reader: OpRecord | None,
        read: Value | None,
    ) -> _Search:
        origins: set[Origin] = set()
        cleared = max(
            (
                index
                for index, area in self._clears.get(region.key, ())
                if index < before and area.covers(region)
            ),
            default=-1,
        )
        for record, value in reversed(self._writers.get(region.key, ())):
            assert value.region is not None
            if record.index >= before or not value.region.overlaps(region):
                continue
            if record.index < cleared:
                break
            if getattr(value, kind):
                origins |= yield kind, record, value
            if value.region.covers(region):
                break
        if not origins:
            origins.add(self._external(kind, read, reader))
        return frozenset(origins)

    def _explain(self, kind: Kind, record: OpRecord, value: Value) -> _Search:
        if record.packet in op_table.LITERALS and value.numel > 1:
            # An array or a list of numbers: data that came in by this operation.
            return frozenset({self._external(kind, value, record)})
        if record.packet in op_table.LITERALS:
            mask = kind == "inf" and not value.posinf and not value.nan
            return frozenset({Origin(kind, _CONSTANT, record, value, innocent=mask)})
        inputs = _relevant_inputs(record, value)
        same = [entry for entry in inputs if getattr(entry, kind)]
        masks: tuple[Origin, ...] = ()
        if same:
            roots = yield from self._of_inputs(kind, same, record)
            innocent = all(origin.innocent for origin in roots)
            if not innocent or kind == "nan" or not _makes_positive(record, value, inputs):
                return roots
            masks = _in_order(roots)  # all of them -Inf: the +Inf is this operation's own
        infinite = [entry for entry in inputs if entry.inf] if kind == "nan" else []
        if infinite:
            roots = yield from self._of_inputs("inf", infinite, record)
            guilty = frozenset(origin for origin in roots if not origin.innocent)
            if guilty:
                return guilty
            if record.packet in op_table.TURNS_MASKS:
                return frozenset({Origin(kind, _ARITHMETIC, record, value, _in_order(roots))})
            return frozenset(dataclasses.replace(origin, innocent=False) for origin in roots)
        if record.packet in op_table.UNINITIALISED:
            return frozenset({Origin(kind, _UNINITIALISED, record, value)})
        if record.constant:
            mask = kind == "inf" and not value.posinf and not value.nan
            return frozenset({Origin(kind, _CONSTANT, record, value, innocent=mask)})
        return frozenset({Origin(kind, _ARITHMETIC, record, value, masks)})

    def _external(self, kind: Kind, value: Value | None, reader: OpRecord | None) -> Origin:
        mask = (
            value is not None
            and value.region is not None
            and not value.nan
            and not value.posinf
            and value.region.key not in self._never_masks
        )
        return Origin(kind, _EXTERNAL, reader, value, innocent=mask)


def _in_order(origins: frozenset[Origin]) -> tuple[Origin, ...]:
    return tuple(sorted(origins, key=lambda origin: origin.order))


def _makes_positive(record: OpRecord, output: Value, inputs: list[Value]) -> bool:
    """Whether an operation made +Inf where only -Inf went in, and no sign was changed as such."""
    return bool(output.posinf) and not record.negates and not any(v.posinf for v in inputs)


def _kinds(value: Value | Sink) -> list[Kind]:
    kinds: list[Kind] = []
    if value.nan:
        kinds.append("nan")
    if value.inf:
        kinds.append("inf")
    return kinds


def _relevant_inputs(record: OpRecord, output: Value) -> list[Value]:
    """The bad inputs that this output is made from."""
    inputs = list(record.inputs)
    if record.packet.startswith(("aten._foreach_", "aten._fused_")) and output.item is not None:
        return [value for value in inputs if value.item in (None, output.item)]
    if record.packet in op_table.BATCH_NORMS and record.training:
        statistics = op_table.BATCH_NORMS[record.packet][:2]
        if output.argument not in statistics:
            return [value for value in inputs if value.argument not in statistics]
        return [value for value in inputs if value.argument in (0, output.argument)]
    return inputs
