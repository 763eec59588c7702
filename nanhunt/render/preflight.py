"""Writes a preflight as a `Story`, from which text and HTML are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanhunt.render import wording
from nanhunt.render.story import Story, Table

if TYPE_CHECKING:
    from nanhunt.records.preflight import (
        AutocastRegion,
        Fact,
        ModuleFacts,
        ParameterCount,
        Preflight,
    )

_NAMES_SHOWN = 6


def tell_preflight(preflight: Preflight) -> Story:
    """Turns a preflight into its story."""
    count = len(preflight.warnings)
    verdict = (
        f"Preflight: {count} thing{'s' if count != 1 else ''} to look at"
        if count
        else "Preflight: nothing to worry about"
    )
    facts = [("look at" if f.severity == "warning" else "fact", _fact(f)) for f in preflight.facts]
    if preflight.title:
        facts.append(("model", wording.visible(preflight.title, 120)))
    tables = []
    if preflight.regions:
        tables.append(
            Table(
                "Autocast regions",
                ("autocast", "device", "dtype", "entered", "where"),
                tuple(map(_region, preflight.regions)),
            )
        )
    if preflight.parameters:
        tables.append(
            Table(
                "Parameters",
                ("module", "parameters", "trainable", "dtypes"),
                tuple(map(_count, preflight.parameters)),
            )
        )
    if preflight.modules:
        near = sorted(preflight.modules, key=lambda m: 1e9 if m.headroom is None else m.headroom)
        tables.append(
            Table(
                "Modules, nearest to overflow first",
                ("module", "class", "calls", "|max|", "to limit", "dtypes of its results"),
                tuple(map(_module, near)),
                first=True,
            )
        )
    return Story(
        "△" if count else "✓",
        "warning" if count else "healthy",
        verdict,
        tuple(facts),
        tables=tuple(tables),
        notes=tuple(wording.visible(note, 300) for note in preflight.notes),
    )


def _fact(fact: Fact) -> str:
    where = f", {wording.place(fact.source)}" if fact.source else ""
    code = f": `{wording.visible(fact.source.code, 120)}`" if fact.source else ""
    names = [wording.visible(name, 60) for name in fact.names[:_NAMES_SHOWN] if name]
    more = len(fact.names) - len(names)
    listed = f" ({', '.join(names)}{f' and {more} more' if more > 0 else ''})" if names else ""
    return f"{wording.visible(fact.text, 300)}{listed}{where}{code}"


def _region(region: AutocastRegion) -> tuple[str, ...]:
    where = "before the step began"
    if region.source is not None:
        where = f"{wording.place(region.source)}   {wording.visible(region.source.code, 100)}"
    return (
        "on" if region.enabled else "off",
        region.device,
        region.dtype,
        f"{region.times:,}x",
        where,
    )


def _count(count: ParameterCount) -> tuple[str, ...]:
    dtypes = ", ".join(f"{name} {number:,}" for name, number in count.dtypes)
    name = wording.visible(count.name, 60) or "(all)"
    return name, f"{count.total:,}", f"{count.trainable:,}", dtypes


def _module(module: ModuleFacts) -> tuple[str, ...]:
    return (
        wording.visible(module.module, 60) or "(root)",
        wording.visible(module.kind, 30),
        f"{module.calls:,}",
        wording.number(module.absmax),
        wording.bits(module.headroom),
        ", ".join(f"{name} {number:,}" for name, number in module.dtypes) or "–",
    )
