"""How large things were in the steps before: loss, gradients, parameters and buffers.

Magnitudes are reduced on the device and read only when a step has gone bad. The loss is
noted in every step; the rest in each of the first steps and later in every eighth, so
that the cost stays a fraction of the sentinel's own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from nanhunt.core.stats import real_values

_KEPT = 64
_EVERY_STEP_UNTIL = 16
_STRIDE = 8


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


class History:
    """The last magnitudes, oldest first."""

    def __init__(self) -> None:
        self._entries: deque[tuple[int, str, Tensor]] = deque(maxlen=4 * _KEPT)

    @staticmethod
    def wanted(step: int) -> bool:
        """Whether parameters, gradients and buffers are to be measured after this step."""
        return step < _EVERY_STEP_UNTIL or step % _STRIDE == 0

    def note(self, step: int, what: str, tensors: Iterable[Tensor]) -> None:
        """Notes the largest magnitude of some tensors, without reading it."""
        size = largest(tensors)
        if size is not None:
            self._entries.append((step, what, size))

    def growths(self) -> list[Growth]:
        """The series that grew for at least four measurements up to the end, at least tenfold."""
        found = []
        for what in dict.fromkeys(name for _, name, _ in self._entries):
            points = [(step, float(v)) for step, name, v in self._entries if name == what]
            growth = _tail_growth(what, points)
            if growth is not None:
                found.append(growth)
        return found


@torch.no_grad()
def largest(tensors: Iterable[Tensor]) -> Tensor | None:
    """Largest magnitude over tensors, as a 0-dimensional float32 tensor on the device."""
    sizes = []
    for tensor in tensors:
        values = real_values(tensor)
        if values is not None and values.numel():
            low, high = torch.aminmax(values)
            sizes.append(torch.maximum(-low, high).float())
    if not sizes:
        return None
    return torch.stack([size.to(sizes[0].device) for size in sizes]).max()


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
