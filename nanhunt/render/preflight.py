"""A preflight's telling: the verdict, what to look at, then tables of plain facts."""

from __future__ import annotations

from nanhunt.facts import Preflight
from nanhunt.render import wording
from nanhunt.render.html import story_html, story_page
from nanhunt.render.story import Story, Table
from nanhunt.render.text import story_text
from nanhunt.report import Source

_LINES = 60
_ROWS = 12


def text(preflight: Preflight) -> str:
    """Renders it for a terminal."""
    return story_text(tell_preflight(preflight), _LINES)


def html(preflight: Preflight) -> str:
    """Renders it for a notebook's output."""
    return story_html(tell_preflight(preflight))


def page(preflight: Preflight) -> str:
    """Renders it as a page of its own."""
    return story_page(tell_preflight(preflight))


def tell_preflight(p: Preflight) -> Story:
    """Turns a preflight into its story."""
    count = len(p.warnings)
    things = f"{count} thing{'s' if count != 1 else ''} to look at" if count else "nothing to fix"
    facts = [("look at", f"{w.text}{_at(w.source)}") for w in p.warnings]
    facts.append(("model", p.title))
    facts.append(
        (
            "updates",
            f"{p.optimizer_steps} optimizer steps, {p.skipped_by_scaler} skipped by a scaler, "
            f"{p.backwards} backward passes in 1 call of the step; {p.optimizers} optimizers",
        )
    )
    if p.scales:
        facts.append(("scale", ", ".join(wording.number(scale) for scale in p.scales)))
    return Story(
        "△" if count else "✓",
        "preflight",
        f"Preflight: {things}",
        tuple((label, wording.visible(value, 400)) for label, value in facts),
        tables=tuple(table for table in _tables(p) if table.rows),
        notes=tuple(wording.visible(note, 300) for note in p.notes),
    )


def _tables(p: Preflight) -> list[Table]:
    births = [(b.op, _module(b.module), _line(b.source)) for b in p.complex_half]
    regions = [
        (r.device, r.dtype, "on" if r.enabled else "off", str(r.entered), _line(r.source))
        for r in p.autocast
    ]
    lost = [
        (n.why, wording.visible(", ".join(n.names), 50), _line(n.source))
        for n in p.without_gradient
    ]
    counts = [
        (c.module or "(all)", f"{c.total:,}", f"{c.trainable:,}", _dtypes(c.dtypes))
        for c in p.parameters
    ]
    modules = [
        (
            _module(m.module),
            m.kind,
            _dtypes(m.dtypes),
            wording.number(m.absmax),
            wording.bits(m.headroom),
        )
        for m in p.modules
    ]
    return [
        Table("ComplexHalf is born", ("op", "module", "line"), tuple(births[:_ROWS])),
        Table("Autocast", ("device", "dtype", "", "entered", "line"), tuple(regions[:_ROWS])),
        Table("Without gradient", ("why", "parameters", "line"), tuple(lost[:_ROWS])),
        Table("Parameters", ("module", "total", "trainable", "dtypes"), tuple(counts[:_ROWS])),
        Table(
            "Outputs, least room to overflow first",
            ("module", "class", "dtypes", "|max|", "to limit"),
            tuple(modules[:_ROWS]),
        ),
    ]


def _at(source: Source | None) -> str:
    return f" ({_line(source)})" if source else ""


def _line(source: Source | None) -> str:
    return f"{wording.place(source)} {wording.visible(source.code, 80)}" if source else "-"


def _module(name: str | None) -> str:
    return "-" if name is None else wording.visible(name, 60) or "(root)"


def _dtypes(counts: dict[str, int]) -> str:
    return ", ".join(f"{dtype} {count:,}" for dtype, count in counts.items())
