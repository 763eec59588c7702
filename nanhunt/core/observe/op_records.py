"""What an observation notes about operations: values, places, and the records made of them."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from nanhunt.core.observe import op_table
from nanhunt.core.program.module_stack import Place
from nanhunt.core.program.source_lines import Stack
from nanhunt.core.program.torch_calls import Call
from nanhunt.core.tensors.storage import Region
from nanhunt.records.report import Frame, TensorStats


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
class ForwardOp:
    """The forward operation that made an autograd node."""

    index: int
    op: str
    place: Place | None
    stack: Stack
    call: Call | None = None


@dataclasses.dataclass(frozen=True)
class Context:
    """Where an operation ran, and which call above autograd it belongs to."""

    phase: str
    place: Place | None
    node: str | None
    stack: Stack
    forward: ForwardOp | None
    call: Call | None = None


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
    of_zero: bool = False  # a power of 0
    negates: bool = False  # changes signs as the program says: `-x`, `-1 * x`, `0 - x`

    @property
    def packet(self) -> str:
        """The operation without its overload."""
        return op_table.packet(self.op)


@dataclasses.dataclass(frozen=True)
class Birth:
    """An operation that made complex32 out of something else."""

    record: OpRecord
    inputs: tuple[TensorStats, ...]
    outputs: tuple[TensorStats, ...]
    frames: tuple[Frame, ...]
