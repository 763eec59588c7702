"""Which operation made which tensor, for a whole step; so an operand's origin can be found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from nanhunt.core.observe import op_table
from nanhunt.core.program.module_stack import Place
from nanhunt.core.program.source_lines import Stack
from nanhunt.core.program.torch_calls import Call


class Operand(NamedTuple):
    """A tensor of an operation: its argument name, storage and dtype."""

    name: str
    key: int
    dtype: torch.dtype


class LightOp(NamedTuple):
    """What is kept of every operation: numbers and names, no tensor."""

    number: int
    op: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    scalars: dict[str, Any]
    place: Place | None
    stack: Stack | None
    call: Call | None

    @property
    def packet(self) -> str:
        """The operation without its overload."""
        return op_table.packet(self.op)


class Lineage:
    """The operations of one observed step, linked by the storages they read and write."""

    def __init__(self) -> None:
        self.ops: dict[int, LightOp] = {}
        self._writers: dict[int, list[int]] = defaultdict(list)

    def add(self, op: LightOp) -> None:
        """Notes an operation; they come in the order in which they ran."""
        self.ops[op.number] = op
        for key in {operand.key for operand in op.outputs}:
            self._writers[key].append(op.number)

    def maker(self, operand: Operand, before: int) -> LightOp | None:
        """The last operation that wrote this storage before operation number `before`.

        Views share their storage with what they look at, so they are passed over.
        """
        for index in reversed(self._writers.get(operand.key, ())):
            made = self.ops[index]
            if index < before and all(operand.key != read.key for read in made.inputs):
                return made
        # Written in place only: the first write after it came in from outside.
        for index in reversed(self._writers.get(operand.key, ())):
            if index < before and self.ops[index].packet.endswith("_"):
                return self.ops[index]
        return None

    def ancestors(
        self, op: LightOp, depth: int, only: str | None = None
    ) -> Iterator[tuple[LightOp, Operand]]:
        """Yields (maker, operand it made) of an operation's inputs and theirs, nearest first.

        Args:
            op: where to begin.
            depth: how many generations.
            only: the one argument of `op` to follow, or None for all.
        """
        front = [(op, operand) for operand in op.inputs if only in (None, operand.name)]
        seen = set()
        for _ in range(depth):
            following = []
            for reader, operand in front:
                made = self.maker(operand, reader.number)
                if made is None or made.number in seen:
                    continue
                seen.add(made.number)
                yield made, operand
                following += [(made, read) for read in made.inputs]
            front = following

    def outside_keys(self, op: LightOp, depth: int) -> set[int]:
        """Storages from before the step that an operation's inputs descend from."""
        keys = {o.key for o in op.inputs if self.maker(o, op.number) is None}
        for made, _ in self.ancestors(op, depth):
            keys |= {o.key for o in made.inputs if self.maker(o, made.number) is None}
        return keys
