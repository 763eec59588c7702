"""Finds the first bad checkpoint of a folder, by bisection.

What is not finite stays so, in running averages, moments and weights alike, so a series is
healthy up to some file and bad from there on. The newest is read first: if it is healthy, so
is the series. For n files these are at most 1 + ceil(log2(n)) reads: 7 for 64.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from nanhunt.checkpoints.judge.examine import ExaminedCheckpoint
from nanhunt.errors import CheckpointError
from nanhunt.records.diagnosis import Problem, Timeline, TimelinePoint

_NUMBER = re.compile(r"\d+")


def in_order(series: list[Path]) -> tuple[list[Path], str]:
    """Oldest first, and what that was told by."""
    numbers = {path: tuple(map(int, _NUMBER.findall(path.name))) for path in series}
    if len(set(numbers.values())) == len(series):
        return sorted(series, key=lambda path: numbers[path]), "the numbers in the names"
    return sorted(series, key=lambda path: path.stat().st_mtime_ns), "the time of their last change"


def bisect(
    series: list[Path], examine: Callable[[Path], ExaminedCheckpoint]
) -> tuple[Timeline, ExaminedCheckpoint | None]:
    """Finds the first bad checkpoint of a series.

    Args:
        series: the checkpoints, in any order.
        examine: reads one of them.

    Returns:
        The search, and the first bad one (the newest readable one when none is bad; None when
        none can be read).
    """
    order, told = in_order(series)
    looks: list[TimelinePoint] = []
    latest: dict[bool, ExaminedCheckpoint] = {}

    def is_bad(path: Path) -> bool | None:
        """None when it cannot be read."""
        try:
            examination = examine(path)
        except (CheckpointError, OSError) as error:
            looks.append(TimelinePoint(path.name, None, str(error)))
            return None
        critical = [p for p in examination.problems if p.severity == "critical"]
        latest[bool(critical)] = examination
        looks.append(TimelinePoint(path.name, not critical, _summary(critical)))
        return bool(critical)

    bad, healthy = _search(list(order), is_bad)
    timeline = Timeline(
        len(order), told, tuple(looks), healthy.name if healthy else "", bad.name if bad else ""
    )
    return timeline, latest.get(True) or latest.get(False)  # each bad one is older than the last


def _search(
    order: list[Path], is_bad: Callable[[Path], bool | None]
) -> tuple[Path | None, Path | None]:
    """The first bad and the last healthy one; what cannot be read is left out of the series."""
    newest: bool | None = None
    while order and (newest := is_bad(order[-1])) is None:
        order.pop()
    if not order:
        return None, None
    if not newest:
        return None, order[-1]
    low, high = 0, len(order) - 1  # the first bad one lies in order[low : high + 1]
    while low < high:
        middle = (low + high) // 2
        verdict = is_bad(order[middle])
        if verdict is None:
            order.pop(middle)
            high -= 1
        elif verdict:
            high = middle
        else:
            low = middle + 1
    return order[high], order[high - 1] if high else None


def _summary(critical: list[Problem]) -> str:
    if not critical:
        return "healthy"
    more = f" and {len(critical) - 1} more" if len(critical) > 1 else ""
    first = critical[0]
    return f"{first.key or first.file or first.text}: {first.kind.replace('_', ' ')}{more}"
