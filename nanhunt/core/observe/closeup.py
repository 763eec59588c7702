"""A second replay that records one operation in full, with the operations it descends from."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import torch
from torch import Tensor

from nanhunt.core.observe import op_table
from nanhunt.core.observe.evidence import EvidenceCollector, OpEvidence, bad_mask
from nanhunt.core.observe.lineage import LightOp, Lineage, Operand
from nanhunt.core.observe.op_arguments import Argument, scalars
from nanhunt.core.observe.op_records import Value
from nanhunt.core.program.module_stack import Place
from nanhunt.core.program.source_lines import Stack
from nanhunt.core.program.torch_calls import Call
from nanhunt.core.tensors.dtypes import HALVES
from nanhunt.records.report import Frame
from nanhunt.torch_private import current_node, storage_identity

_NEAR = 6  # generations from a product of queries and keys to its softmax (scale, mask, cast)
_REACH = 8  # generations from an operation to a `where` that throws part of its result away


@dataclasses.dataclass(frozen=True)
class Selection:
    """A `where` or `masked_fill` that threw away the part of a result that turned out bad.

    Attributes:
        op: the operation that selects.
        keeps: boolean mask, True where the result is used.
        total, dropped: bad positions, and how many of them are not used.
        stack, call: where it stands.
    """

    op: str
    keeps: Tensor
    total: int
    dropped: int
    stack: Stack | None
    call: Call | None


class Closeup:
    """Which operation to record in full during a replay, and what was recorded of it.

    Args:
        index, op: the operation, by its number in the step and its name.
        forward_index: number of the forward operation that it is the backward of, or None.

    Attributes:
        seen: whether the operation came again under its number.
        main, forward: the evidence.
        frames: the last module calls before it (before its forward).
        lineage: all operations up to it.
        selection: what threw the bad part away, if anything did.
        half_places: modules that computed something in half precision in the whole step, in
            order; None for code outside the model.
    """

    def __init__(self, index: int, op: str, forward_index: int | None) -> None:
        self.index, self.op, self._forward_index = index, op, forward_index
        self.seen = False
        self.main: OpEvidence | None = None
        self.forward: OpEvidence | None = None
        self.frames: tuple[Frame, ...] = ()
        self.lineage = Lineage()
        self.selection: Selection | None = None
        self.half_places: dict[str | None, None] = {}
        self._looks: dict[int, EvidenceCollector] = {}
        self._marked: dict[int, int] = {}
        self._after_main: dict[int, int] = {}
        self._selections: list[tuple[str, Tensor, Stack | None, Call | None]] = []

    @property
    def frames_at(self) -> int:
        """Number of the operation whose preceding modules are to be shown."""
        return self.index if self._forward_index is None else self._forward_index

    def before(self, index: int, func: Any, args: Any, kwargs: Any, call: Call | None) -> None:
        """Called before each operation."""
        if index in (self.index, self._forward_index):
            with contextlib.suppress(torch.OutOfMemoryError):  # then its values stay unknown
                self._looks[index] = EvidenceCollector(index, func, args, kwargs, call)
        in_backward = current_node() is not None
        if index > self.frames_at and self._marked and not in_backward:
            self._note_selection(func, args, call)

    def after(
        self,
        index: int,
        func: Any,
        args: Any,
        kwargs: Any,
        named: list[Argument],
        inputs: list[Value],
        results: list[tuple[Tensor, Value]],
        out: Any,
        place: tuple[Place | None, Stack | None, Call | None],
    ) -> None:
        """Called after each operation."""
        if any(tensor.dtype in HALVES for tensor, _ in results) and place[2] is not None:
            self.half_places.setdefault(place[0].module if place[0] is not None else None)
        if index > self.index:
            self._follow_main(str(func), inputs, results)
            return
        self.lineage.add(
            LightOp(
                index,
                str(func),
                tuple(
                    Operand(a.name, v.region.key, a.tensor.dtype)
                    for a, v in zip(named, inputs, strict=True)
                    if v.region is not None
                ),
                tuple(
                    Operand(v.name, v.region.key, t.dtype)
                    for t, v in results
                    if v.region is not None
                ),
                scalars(func, args, kwargs),
                *place,
            )
        )
        self._spread_marks(index)
        if index not in self._looks:
            return
        try:
            evidence = self._looks[index].after(results, out)
        except torch.OutOfMemoryError:  # no room for a close look: the values stay unknown
            return
        if index == self._forward_index:
            self.forward = evidence
            self._marked = {v.region.key: 0 for _, v in results if v.region is not None}
            self._selections = []
        if index == self.index:
            self.seen = str(func) == self.op
            self.main = evidence
            self._blame_forward([tensor for tensor, _ in results])
            self._after_main = {v.region.key: 0 for _, v in results if v.region is not None}

    def _follow_main(
        self, op: str, inputs: list[Value], results: list[tuple[Tensor, Value]]
    ) -> None:
        """Notes whether the result goes into a softmax soon: then it is an attention's scores."""
        marks = self._after_main
        near = [marks[v.region.key] for v in inputs if v.region and v.region.key in marks]
        if not near or min(near) >= _NEAR or self.main is None:
            return
        if op_table.packet(op) in op_table.SOFTMAXES:
            self.main.extras["feeds_softmax"] = 1.0
        for _, value in results:
            if value.region is not None:
                marks.setdefault(value.region.key, min(near) + 1)

    def _spread_marks(self, index: int) -> None:
        """Follows the forward operation's result through what is made of it."""
        op = self.lineage.ops[index]
        near = [self._marked[o.key] for o in op.inputs if o.key in self._marked]
        if near and min(near) < _REACH:
            for operand in op.outputs:
                self._marked.setdefault(operand.key, min(near) + 1)

    def _note_selection(self, func: Any, args: Any, call: Call | None) -> None:
        name = str(func)
        if name == "aten.where.self":
            condition, chosen, other = args
            if self._is_marked(chosen):
                self._selections.append((name, condition.detach().clone(), None, call))
            elif self._is_marked(other):
                self._selections.append((name, ~condition.detach(), None, call))
        elif name.startswith("aten.masked_fill.") and self._is_marked(args[0]):
            self._selections.append((name, ~args[1].detach(), None, call))

    def _is_marked(self, tensor: Tensor) -> bool:
        return storage_identity(tensor.untyped_storage()) in self._marked

    def _blame_forward(self, outputs: list[Tensor]) -> None:
        look = self._looks.get(self._forward_index if self._forward_index is not None else -1)
        bad = next((mask for mask in map(bad_mask, outputs) if mask.any()), None)
        if look is None or self.forward is None or bad is None:
            return
        self.forward = dataclasses.replace(self.forward, at_bad=look.inputs_at(bad))
        for op, keeps, stack, call in self._selections:
            try:
                kept = keeps.expand(bad.shape)[bad]
            except RuntimeError:  # does not broadcast
                continue
            total, dropped = kept.numel(), int((~kept).sum().item())
            if dropped == total:
                self.selection = Selection(op, keeps, total, dropped, stack, call)
                return

    def release(self) -> None:
        """Lets go of every tensor but the selection's mask."""
        self._looks, self._selections, self._marked = {}, [], {}
