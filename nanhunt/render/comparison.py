"""Writes a comparison as a `Story`, from which text and HTML are made."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from nanhunt.render import wording
from nanhunt.render.story import Story, Table

if TYPE_CHECKING:
    from nanhunt.records.comparison import Comparison, OpSide, Pair

_IDENTICAL_NAMED = 8


def tell_comparison(comparison: Comparison) -> Story:
    """Turns a comparison into its story."""
    facts = []
    if comparison.first_dtype is not None:
        facts.append(("dtype", _difference(comparison.first_dtype)))
    if comparison.first_value is not None:
        facts.append(("value", _difference(comparison.first_value)))
    acquitted = _identical_calls(comparison)
    if acquitted:
        facts.append(("identical", f"same bits in both: {acquitted}"))
    counts = Counter(pair.status for pair in comparison.pairs)
    told = ", ".join(f"{number:,} {status}" for status, number in counts.most_common())
    facts.append(("ops", told or "none were recorded"))
    facts.append(("inputs", wording.visible(comparison.inputs, 200)))
    facts.append(("weights", _weights(comparison)))
    facts.append(("models", wording.visible(comparison.title, 200)))
    parted = comparison.first_dtype is not None or comparison.first_value is not None
    return Story(
        "△" if parted else "✓",
        "warning" if parted else "healthy",
        _verdict(comparison),
        tuple(facts),
        tables=tuple(_tables(comparison)),
        notes=tuple(wording.visible(note, 300) for note in comparison.notes),
    )


def _verdict(comparison: Comparison) -> str:
    first = comparison.first_dtype
    if first is not None and first.baseline and first.modified:
        return (
            f"First difference of dtype: {_where(first.modified)}, {first.baseline.dtype} became "
            f"{first.modified.dtype}"
        )
    first = comparison.first_value
    if first is not None and first.modified:
        return f"Same dtypes; first difference of value: {_where(first.modified)}"
    return "No difference beyond rounding"


def _where(side: OpSide) -> str:
    if side.module is None:
        place = "outside any module"
    else:
        place = f"in {wording.visible(side.module, 60)}" if side.module else "in the root module"
    return f"{wording.visible(side.op, 60)} {place}"


def _difference(pair: Pair) -> str:
    assert pair.baseline is not None
    assert pair.modified is not None
    parts = [f"{_where(pair.modified)}: {pair.baseline.dtype} against {pair.modified.dtype}"]
    if pair.difference is not None and pair.status != "identical":
        limit = wording.number(pair.tolerance)
        parts.append(f"apart by {wording.number(pair.difference)} (rounding explains {limit})")
    source = pair.modified.source
    if source is not None:
        parts.append(f"{wording.place(source)}: `{wording.visible(source.code, 120)}`")
    return ", ".join(parts)


def _identical_calls(comparison: Comparison) -> str:
    """Torch functions all of whose operations gave the same bits."""
    calls: dict[str, bool] = {}
    for pair in comparison.pairs:
        if pair.baseline is not None and pair.baseline.call:
            name = pair.baseline.call.removeprefix("torch.")
            calls[name] = calls.get(name, True) and pair.status == "identical"
    same = [name for name, alike in calls.items() if alike]
    shown = ", ".join(wording.visible(name, 40) for name in same[:_IDENTICAL_NAMED])
    more = len(same) - _IDENTICAL_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _weights(comparison: Comparison) -> str:
    told = f"{comparison.weights_shared:,} parameters and buffers given the baseline's values"
    missing = comparison.weights_unmatched
    if missing:
        names = ", ".join(wording.visible(name, 60) for name in missing[:4])
        told += f"; {len(missing):,} have no counterpart ({names})"
    return told


def _tables(comparison: Comparison) -> list[Table]:
    alike = [pair.status in ("identical", "rounding") for pair in comparison.pairs]
    parted = [
        pair
        for pair, same in zip(comparison.pairs, alike, strict=True)
        if not same or not pair.same_dtype
    ]
    headers = ("operation", "module", "baseline", "modified", "apart by", "rounding")
    tables = []
    if parted:
        rows = tuple(map(_row, parted))
        tables.append(Table("What differs, in order", headers, rows, first=True))
    same = [
        pair
        for pair, likewise in zip(comparison.pairs, alike, strict=True)
        if likewise and pair.same_dtype
    ]
    if same:
        tables.append(
            Table(
                "What is the same",
                (*headers[:4], "apart by", "status"),
                tuple((*_row(pair)[:5], pair.status) for pair in same),
                first=True,
            )
        )
    return tables


def _row(pair: Pair) -> tuple[str, ...]:
    side = pair.modified or pair.baseline
    assert side is not None
    module = "–" if side.module is None else wording.visible(side.module, 40) or "(root)"
    return (
        wording.visible(side.op.removeprefix("aten."), 40),
        module,
        _cell(pair.baseline),
        _cell(pair.modified),
        wording.number(pair.difference),
        wording.number(pair.tolerance),
    )


def _cell(side: OpSide | None) -> str:
    return "–" if side is None else f"{side.dtype} {wording.number(side.absmax)}"
