"""The evidence of a failing step, which rules read, and queries that many rules share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.locate.descent import Origin
from nanhunt.core.locate.starting_tensors import Named, Outside
from nanhunt.core.observe import op_table
from nanhunt.core.observe.closeup import Closeup, Selection
from nanhunt.core.observe.evidence import OpEvidence
from nanhunt.core.observe.lineage import LightOp, Lineage, Operand
from nanhunt.core.program.casts import NOT_BY_AUTOCAST
from nanhunt.core.program.source_lines import Line, source_of
from nanhunt.core.tensors.dtypes import HALVES, REAL_HALF_NAMES, WIDE, dtype_name
from nanhunt.core.watch.magnitudes import Growth
from nanhunt.records.report import Finding

_STRAIGHT = 6  # operations that are followed so


@dataclasses.dataclass
class Scene:
    """The evidence that was collected of a failing step.

    Attributes:
        finding: what, where, when; without a cause yet.
        origin: how the bad value came about; None for a ComplexHalf birth.
        closeup: the operation that made it, seen closely; None when there is none.
        outside: the tensor from outside the step that was bad, if it came from there.
        named: parameters, buffers and so on by their storage.
        growths: what grew in the steps before.
        optimizers, scalers: all that are known.
        only_compiled: whether the step fails as compiled and is healthy when run eagerly.
        scaled_twice: whether a scaled loss was scaled once more.
        plain_step_with_scaler: whether a scaled loss was stepped without its scaler.
    """

    finding: Finding = dataclasses.field(default_factory=lambda: Finding("", "", "", 0))
    origin: Origin | None = None
    closeup: Closeup | None = None
    outside: Outside | None = None
    named: dict[int, Named] = dataclasses.field(default_factory=dict)
    growths: list[Growth] = dataclasses.field(default_factory=list)
    optimizers: list[Optimizer] = dataclasses.field(default_factory=list)
    scalers: list[GradScaler] = dataclasses.field(default_factory=list)
    only_compiled: bool = False
    plain_step_with_scaler: bool = False
    scaled_twice: bool = False

    @property
    def main(self) -> OpEvidence | None:
        """The operation that made the bad value."""
        return self.closeup.main if self.closeup and self.closeup.seen else None

    @property
    def forward(self) -> OpEvidence | None:
        """The forward operation whose backward that is, if it is."""
        return self.closeup.forward if self.closeup and self.closeup.seen else None

    @property
    def lineage(self) -> Lineage:
        """The step's operations up to it."""
        return self.closeup.lineage if self.closeup else Lineage()

    @property
    def selection(self) -> Selection | None:
        """A `where` that threw the bad part away in the forward."""
        return self.closeup.selection if self.closeup else None

    @property
    def culprit(self) -> OpEvidence | None:
        """The forward operation that is to blame, or else the operation itself."""
        return self.forward or self.main

    @property
    def node(self) -> str:
        """The autograd node that ran, without the number of its version."""
        return (self.finding.node or "").rstrip("0123456789")

    def light(self, evidence: OpEvidence) -> LightOp | None:
        """The place of an operation in the lineage."""
        return self.lineage.ops.get(evidence.index)

    def ancestors(
        self, evidence: OpEvidence, argument: str | None = None, depth: int = 6
    ) -> Iterator[tuple[LightOp, Operand]]:
        """The operations that an operation's argument goes back to, nearest first."""
        light = self.light(evidence)
        if light is not None:
            yield from self.lineage.ancestors(light, depth, argument)

    def straight_up(
        self, evidence: OpEvidence, argument: str | None
    ) -> Iterator[tuple[LightOp, Operand]]:
        """What made an operand, and what made that, as long as a 0 passes through unchanged.

        Args:
            evidence: the operation.
            argument: the operand's name in its schema; None for any.
        """
        light = self.light(evidence)
        waiting = [(light, o) for o in light.inputs if argument in (None, o.name)] if light else []
        for _ in range(_STRAIGHT):
            following = []
            for reader, operand in waiting:
                made = self.lineage.maker(operand, reader.number)
                if made is None:
                    continue
                yield made, operand
                if made.packet in op_table.PASSES_ZERO:
                    following += [(made, read) for read in made.inputs]
            waiting = following

    def straight_from(self, evidence: OpEvidence, argument: str) -> list[Named]:
        """The named tensors that an operand is, but for what leaves a 0 a 0."""
        light = self.light(evidence)
        if light is None:
            return []
        keys = {o.key for o in light.inputs if o.name == argument}
        for made, _ in self.straight_up(evidence, argument):
            if made.packet in op_table.PASSES_ZERO:
                keys |= {read.key for read in made.inputs}
        return [self.named[key] for key in keys if key in self.named]

    def roots(self, evidence: OpEvidence, depth: int = 6) -> list[Named]:
        """The parameters, buffers and batches that an operation's inputs descend from."""
        light = self.light(evidence)
        if light is None:
            return []
        keys = self.lineage.outside_keys(light, depth)
        return [self.named[key] for key in keys if key in self.named]

    def half_cast(self, evidence: OpEvidence) -> str:
        """Who made an operation's input half precision, as the end of a sentence, or ""."""
        light = self.light(evidence)
        if light is not None and light.packet in op_table.CASTS and evidence.dtype in HALVES:
            return f"the cast is made by {_caster(light)}"
        for made, operand in self.ancestors(evidence, depth=16):
            wide = [read for read in made.inputs if read.dtype in WIDE]
            if made.packet in op_table.CASTS and wide and operand.dtype in HALVES:
                return f"made {dtype_name(operand.dtype)} by {_caster(made)}{line_of(made)}"
        halves = [n for n in self.roots(evidence, 16) if n.stats.dtype in REAL_HALF_NAMES]
        return f"{halves[0].role} {halves[0].name} is {halves[0].stats.dtype}" if halves else ""


def _caster(made: LightOp) -> str:
    name = made.call.name.rpartition(".")[2] if made.call else ""
    if made.call is not None and made.call.autocast is not None and name not in NOT_BY_AUTOCAST:
        return f"autocast for `{name}`"
    return f"`.{name}()`" if name else made.op


def line_of(made: LightOp) -> str:
    """Where an operation stands, e.g. ` in `x = x.half()` (train.py:12)`; may be empty."""
    if made.stack is None or not made.stack.lines:
        return ""
    return written_at(made.stack.lines[0])


def written_at(line: Line) -> str:
    """A line of the program and where it stands; see `line_of`."""
    source = source_of(line)
    short = source.file.replace("\\", "/").rpartition("/")[2]
    place = f"cell [{source.cell}], line" if source.cell is not None else f"{short}:"
    return f" in `{source.code}` ({place}{' ' if source.cell is not None else ''}{source.line})"
