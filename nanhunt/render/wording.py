"""Numbers, names and places as words, the same in every rendering."""

from __future__ import annotations

import unicodedata
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nanhunt.records.report import Finding, Source, TensorStats


KINDS = {
    "nan": "NaN",
    "inf": "Inf",
    "complex_half": "ComplexHalf",
    "poisoned_state": "Poisoned state",
    "not_training": "Not training",
}
# Of what a report comes to; green, the first, is for nothing else.
SIGNS = {
    "healthy": "✓",
    "warning": "△",
    "finding": "✗",
    "unexplained": "?",
    "interrupted": "■",
    "nothing_watched": "○",
    "internal_error": "!",
}


def visible(value: str, limit: int = 200) -> str:
    """Makes control and direction-changing characters visible, and cuts what is too long."""
    shown = "".join(_visible(character) for character in value)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def _visible(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return f"\\u{ord(character):04x}" if character != "\t" else " "
    return character


def number(value: float | None) -> str:
    """Three significant digits; a dash for what does not exist."""
    if value is None:
        return "–"
    return f"{value:.3g}"


def bits(value: float | None) -> str:
    """Powers of two up to the dtype's limit."""
    return "–" if value is None else f"2^{value:.1f}"


def shape(stats: TensorStats) -> str:
    """`float16 [8, 3, 64]`."""
    return f"{visible(stats.dtype, 20)} {list(stats.shape)}"


def bad_counts(stats: TensorStats) -> str:
    """`3 NaN, 1 +Inf of 4,096`, or `finite`."""
    parts = [
        f"{count:,} {word}"
        for count, word in ((stats.nan, "NaN"), (stats.posinf, "+Inf"), (stats.neginf, "-Inf"))
        if count
    ]
    if stats.note:
        return visible(stats.note, 40)
    return f"{', '.join(parts)} of {stats.numel:,}" if parts else "finite"


def module(finding: Finding) -> str:
    """A module path as words."""
    if finding.module is None:
        return "outside any module"
    return f"in {visible(finding.module, 60)}" if finding.module else "in the root module"


def call(value: int | str | None) -> str:
    """The n-th call, said only when it is not the first."""
    if value is None or value == 1:
        return ""
    return " (recomputed)" if value == "recompute" else f" (call {value})"


def place(source: Source | None) -> str:
    """`cell [3], line 7` or `train.py:41`."""
    if source is None:
        return ""
    if source.cell is not None:
        return f"cell [{source.cell}], line {source.line}"
    return f"{visible(PurePath(source.file).name, 40)}:{source.line}"


def lines(file: str, cell: int | None, numbers: tuple[int, ...]) -> str:
    """`train.py:41`, `train.py:41-43` or `cell [3], line 7`."""
    last = f"-{numbers[-1]}" if numbers[-1] != numbers[0] else ""
    if cell is not None:
        return f"cell [{cell}], line {numbers[0]}{last}"
    return f"{visible(PurePath(file).name, 40)}:{numbers[0]}{last}"


def steps(count: int) -> str:
    """`1 step`, `1,024 steps`."""
    return f"{count:,} step{'s' if count != 1 else ''}"


def cut_short(count: int, *, by_hand: bool) -> str:
    """After so many steps something ended the run before its end, and nothing was bad so far."""
    ended = "Interrupted" if by_hand else "Ended by an exception"
    return f"{ended} after {steps(count)}: nothing bad seen until then"


def verdict(finding: Finding) -> str:
    """One line that says what, when, where."""
    where = f"{module(finding)}{call(finding.call)}"
    line = place(finding.source)
    at = f", {line}" if line else ""
    if finding.kind == "poisoned_state":
        return f"Step {finding.step}: {visible(finding.tensor or 'state', 60)} was bad at the start"
    if finding.kind == "complex_half":
        return f"ComplexHalf is born in step {finding.step}: {finding.op} {where}{at}"
    kind = KINDS.get(finding.kind, visible(finding.kind, 30))
    if finding.kind == "not_training":
        return f"{kind}: {visible(finding.cause.replace('_', ' '), 60)}"
    if finding.phase == "data":
        culprit = visible(finding.tensor or "a tensor", 60)
        return f"{kind} comes in with the data in step {finding.step}: {culprit}{at}"
    if not finding.placed:
        seen = visible(finding.reaches[0] if finding.reaches else finding.tensor or "a tensor", 60)
        unknown = "; what made it is not known" if finding.cause == "not_established" else ""
        return f"{kind} was seen in step {finding.step} ({seen}){unknown}"
    culprit = finding.node or finding.op or finding.tensor or "an operation"
    return (
        f"{kind} is born in step {finding.step}: {visible(culprit, 60)} {where} "
        f"({finding.phase}){at}"
    )


def replay(value: str) -> str:
    """The replay verdict in plain words."""
    known = {
        "bit_exact": "replayed bit for bit",
        "symptom": "replayed with the same failure, other bits",
        "not_needed": "",
    }
    return known.get(value, visible(value.replace("not_reproduced", "not reproduced"), 160))
