"""How large things were in the steps before: loss, gradients, parameters and buffers.

The loss is noted in every step. The rest is reduced on the device and read only when a step has
gone bad: in each of the first steps, later in every eighth and whenever the loss has just
doubled, so that the cost stays a fraction of the sentinel's own.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from torch import Tensor

from nanhunt.core.program.target import Target
from nanhunt.core.tensors.stats import largest

_KEPT = 64
_EVERY_STEP_UNTIL = 16
_STRIDE = 8
_RISES = 2.0
_RAN_AWAY = 1000.0  # times as large as ever before, in one step


class Growth(NamedTuple):
    """A series that grew to the end.

    Attributes:
        what: `"loss"`, `"gradients"`, `"parameters"` or `"buffers"`.
        rate: factor per step.
        since: the step in which it began.
        first, last: largest magnitude then and now.
    """

    what: str
    rate: float
    since: int
    first: float
    last: float

    def __str__(self) -> str:
        return (
            f"{self.what} grew {self.rate:.3g}x per step since step {self.since} "
            f"(largest magnitude from {self.first:.3g} to {self.last:.3g})"
        )


class Usual(NamedTuple):
    """The largest magnitudes of the steps before, where they are known.

    Attributes:
        loss: of the loss.
        gradients: of any gradient.
    """

    loss: float | None = None
    gradients: float | None = None


class History:
    """The last magnitudes of each series, oldest first."""

    def __init__(self) -> None:
        self._series: dict[str, deque[tuple[int, Tensor | float]]] = {}

    def note_step(self, step: int, loss: Tensor | float | None, target: Target) -> None:
        """Notes how large things are after a step (-1: before the first); nothing is read."""
        self.note(step, "loss", loss)
        if self._wanted(step):
            parameters = list(target.parameters.values())
            self.note(step, "gradients", largest(p.grad for p in parameters if p.grad is not None))
            self.note(step, "parameters", largest(parameters))
            self.note(step, "buffers", largest(b for _, b in target.buffers()))

    def _wanted(self, step: int) -> bool:
        """Whether parameters, gradients and buffers are to be measured after this step."""
        return step < _EVERY_STEP_UNTIL or step % _STRIDE == 0 or self._loss_rises()

    def note(self, step: int, what: str, size: Tensor | float | None) -> None:
        """Notes a largest magnitude; a tensor is not read before it is asked for."""
        if size is not None:
            self._series.setdefault(what, deque(maxlen=_KEPT)).append((step, size))

    def growths(self) -> list[Growth]:
        """The series that grew for at least four measurements up to the end, at least tenfold."""
        found = (
            _tail_growth(what, [(step, float(size)) for step, size in series])
            for what, series in self._series.items()
        )
        return [growth for growth in found if growth is not None]

    def usual(self, before: int) -> Usual:
        """How large things were in the steps before this one, until they ran away, if they did."""
        return Usual(self._usual("loss", before), self._usual("gradients", before))

    def _usual(self, what: str, before: int) -> float | None:
        usual: float | None = None
        for step, size in self._series.get(what, ()):
            value = float(size)
            if step < before and math.isfinite(value) and value <= _RAN_AWAY * (usual or math.inf):
                usual = max(value, usual or 0.0)
        return usual

    def _loss_rises(self) -> bool:
        """Whether the loss is well above what it was in one of the last steps."""
        losses = [float(size) for _, size in self._series.get("loss", ())][-_STRIDE:]
        return len(losses) > 1 and losses[-1] > _RISES * min(losses[:-1])


def _tail_growth(what: str, points: list[tuple[int, float]]) -> Growth | None:
    points = [(step, value) for step, value in points if math.isfinite(value) and value > 0]
    start = len(points) - 1
    while start > 0 and points[start][1] > 1.02 * points[start - 1][1]:
        start -= 1
    if len(points) - start < 4:
        return None
    (first_step, first), (last_step, last) = points[start], points[-1]
    rate = (last / first) ** (1 / (last_step - first_step))
    return Growth(what, rate, first_step + 1, first, last) if last >= 10 * first else None
