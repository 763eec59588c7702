"""What one step did, and what in it ended up bad."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.tensors.storage import Region


@dataclasses.dataclass(frozen=True)
class Sink:
    """Something that ended up bad and matters.

    Attributes:
        kind: `"loss"`, `"gradient"`, `"parameter"`, `"buffer"`, `"state"`, `"operation"`.
        name: the tensor's name, e.g. `"encoder.weight"`.
        region: its memory, or None.
        nan, inf: how many elements are bad.
        index: number of operations that had run when it was seen.
    """

    kind: str
    name: str
    region: Region | None
    nan: int
    inf: int
    index: int

    def __str__(self) -> str:
        if self.kind in ("loss", "operation"):
            return self.name
        return f"{'optimizer state' if self.kind == 'state' else self.kind} {self.name}"


def names(bad: Sequence[Sink]) -> str:
    """The first few names of what is bad."""
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return ", ".join(str(sink) for sink in bad[:3]) + more


class StepFacts:
    """What one step did, as the sentinel saw it."""

    def __init__(self) -> None:
        self.backwards = 0
        self.losses: list[Tensor] = []
        self.stepped: list[Optimizer] = []
        self.had_gradients = False  # whether an update was given any
        self.skipped: list[tuple[GradScaler, Optimizer]] = []
        self.screens: dict[str, Tensor] = {}
        self.suspects: list[str] = []
        self.sinks: list[Sink] = []
        self.held: list[Sink] = []  # bad values in the user's variables when the step raised
        self.named = False  # whether `sinks` are all that is bad; else `suspects` may be more
        self.prints: list[tuple[str, tuple[int, int]]] = []
        self.returned: Any = None
        self.scaled = False
        self.loss_size: float | None = None
        self.plain_step_with_scaler = False
        self.scaled_twice = False
        self.overflowed: list[str] = []  # scaled gradients that were bad and lost: how
        self.gradients: dict[str, Tensor] = {}

    def note_lost(self, labels: Iterable[str]) -> None:
        """Notes gradients that were not finite and that nobody can look at any more.

        Args:
            labels: what they were and their fate, e.g. `"scaled gradients, thrown away"`.
        """
        for label in labels:
            if label.startswith("scaled"):
                self.overflowed.append(label)
            else:
                self.suspects.append(label)
                self.sinks.append(Sink("gradient", f"({label.partition(', ')[2]})", None, 0, 0, 0))

    @property
    def bad(self) -> bool:
        """Whether anything tripped."""
        return bool(self.suspects or self.sinks)
