"""Weights far larger or smaller than the same weight of the other layers of their kind."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator

from nanhunt.checkpoints.formats.contents import Contents, Entry
from nanhunt.checkpoints.judge.problem import problem
from nanhunt.checkpoints.judge.rules import ALIKE, ENOUGH, OUTLIER
from nanhunt.checkpoints.judge.scan import Scan
from nanhunt.records.diagnosis import Problem

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")  # a part of the name that is a number alone


def outliers(contents: Contents, weights: list[tuple[Entry, Scan]]) -> Iterator[Problem]:
    """Compares the largest magnitudes of matrices that differ only in the number of a layer.

    Tensors that are zero throughout are left out: residual branches and adapters start so.
    """
    groups: dict[tuple[str, tuple[int, ...]], list[tuple[Entry, Scan]]] = {}
    for entry, scan in weights:
        if len(entry.shape) >= 2 and scan.absmax and not scan.bad:
            family = (_NUMBER.sub("*", entry.key), entry.shape)
            groups.setdefault(family, []).append((entry, scan))
    for (name, _), group in groups.items():
        if len(group) >= ENOUGH:
            yield from _in_group(contents, name, group)


def _in_group(contents: Contents, name: str, group: list[tuple[Entry, Scan]]) -> Iterator[Problem]:
    median = statistics.median(scan.absmax for _, scan in group)
    alike = sum(median / ALIKE <= scan.absmax <= median * ALIKE for _, scan in group)
    if alike < 0.75 * len(group):
        return
    for entry, scan in group:
        if median / OUTLIER <= scan.absmax <= median * OUTLIER:
            continue
        text = (
            f"its largest value is {scan.absmax:.3g}; the median of the {len(group)} like it "
            f"({name}) is {median:.3g}"
        )
        advice = "look at how this layer was initialised, and what is added to it"
        yield problem(
            contents, entry, scan, "weight", "scale_outlier", "warning", text, advice=advice
        )
