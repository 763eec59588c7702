"""Histograms as matplotlib figures: one tensor, a tensor over time, all modules over time.

`matplotlib.figure.Figure` alone, never pyplot: pyplot is not safe in threads.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from nanhunt.render.wording import number

if TYPE_CHECKING:
    from nanhunt.records.histogram import Histogram

# Exponents of the smallest subnormal and of the largest number. IEEE 754; bfloat16 as in the
# PyTorch documentation of torch.finfo; float8 from "FP8 Formats for Deep Learning"
# (Micikevicius et al., 2022, arXiv:2209.05433), table 1.
RANGES: Mapping[str, tuple[int, int]] = {
    "float16": (-24, 15),
    "bfloat16": (-133, 127),
    "float8_e4m3fn": (-9, 8),
    "float8_e5m2": (-16, 15),
}

POSITIVE, NEGATIVE, ALARM = "#3b7dd8", "#e08a1e", "#d62f2f"
_INK = "#010203"  # replaced in a page by the colour of its text
_MOST_LABELS = 40
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class _Figure(Figure):
    """Shows itself in a notebook in which pyplot has not been imported, too."""

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.savefig(out, format="png", dpi=100)
        return out.getvalue()


def activity(histogram: Histogram, title: str, ink: str | None = None) -> Figure:
    """One tensor's numbers by sign and power of two, with the ranges of narrow dtypes.

    Args:
        histogram: what to draw.
        title: above it.
        ink: colour of text and axes; None for the style in force.
    """
    figure, axes = _figure(title, height=3.2, top=0.71, bottom=0.2, left=0.11)
    exponents = [each.exponent for each in histogram.bins]
    low, high = min(exponents, default=-8) - 2, max(exponents, default=1) + 2
    axes.bar(exponents, [b.positive for b in histogram.bins], 0.9, color=POSITIVE)
    axes.bar(exponents, [-b.negative for b in histogram.bins], 0.9, color=NEGATIVE)
    axes.set_yscale("symlog", linthresh=1)
    most = max((max(b.positive, b.negative) for b in histogram.bins), default=1)
    decades = math.ceil(math.log10(most + 1))
    powers = range(0, decades + 1, 1 + decades // 4)
    ticks = [sign * 10**power for power in powers for sign in (1, -1)]
    axes.set_yticks(ticks, [f"{abs(tick):,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(-3.0 * most, 3.0 * most)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlim(low - 0.5, high + 0.5)
    _label_powers(axes.xaxis)
    axes.set_ylabel("x < 0      x > 0", fontsize=8)
    axes.set_xlabel(_counts(histogram), fontsize=8)
    _draw_ranges(figure, low, high)
    figure.text(0.99, 0.97, _told_bad(histogram), ha="right", va="top", fontsize=10, color=ALARM)
    return _in_ink(figure, ink)


def over_time(
    steps: Sequence[int], histograms: Sequence[Histogram | None], title: str, ink: str | None = None
) -> Figure:
    """One tensor's numbers over the last steps: a column per step, a row per power of two."""
    figure, axes = _figure(title, height=3.2)
    exponents = [b.exponent for h in histograms if h for b in h.bins]
    low, high = min(exponents, default=-1), max(exponents, default=0)
    grid = [[math.nan] * len(steps) for _ in range(high - low + 1)]
    for column, histogram in enumerate(histograms):
        for each in histogram.bins if histogram else ():
            share = (each.negative + each.positive) / max(histogram.binned, 1)  # type: ignore[union-attr]
            grid[each.exponent - low][column] = 100 * share
    image = _image(axes, grid, (low - 0.5, high + 0.5), "Blues", shares=True)
    _mark_bad(axes, [bool(h and h.bad) for h in histograms], high + 0.5)
    _label_steps(axes, steps)
    _label_powers(axes.yaxis)
    axes.set_ylabel("magnitude")
    _scale(figure, image)
    return _in_ink(figure, ink)


def timeline(
    steps: Sequence[int],
    rows: Mapping[str, Sequence[Histogram | None]],
    title: str,
    ink: str | None = None,
) -> Figure:
    """The largest magnitude of every module over the last steps; what is not finite in red."""
    shown = min(len(rows), _MOST_LABELS)
    height = 1.2 + 0.17 * max(shown, 6)
    every = math.ceil(len(rows) / _MOST_LABELS) if rows else 1
    places = range(0, len(rows), every)
    names = [_short(name) for name in list(rows)[::every]]
    left = 0.05 + 0.0082 * max(map(len, names), default=0)  # a character at 7 points
    figure, axes = _figure(title, height, 1 - 0.35 / height, 0.55 / height, left)
    grid = [[_exponent(h) for h in row] for row in rows.values()]
    image = _image(axes, grid, (len(grid) - 0.5, -0.5), "viridis")
    for y, row in enumerate(rows.values()):
        columns = [x for x, h in enumerate(row) if h and h.bad]
        axes.plot(columns, [y] * len(columns), "s", color=ALARM, markersize=5)
    axes.set_yticks(list(places), names, fontsize=7)
    _label_steps(axes, steps)
    _scale(figure, image)
    return _in_ink(figure, ink)


def batch_norm(four: Mapping[str, Histogram], title: str, ink: str | None = None) -> Figure:
    """A BatchNorm layer's running statistics beside those of its last batch, per channel."""
    figure = _Figure(figsize=(6.4, 3.2))
    FigureCanvasAgg(figure)
    pair = figure.subplots(1, 2)
    figure.subplots_adjust(0.1, 0.1, 0.985, 0.82, wspace=0.25)
    figure.text(0.08, 0.97, title, fontsize=10, ha="left", va="top")
    for axes, what in zip(pair, ("mean", "var"), strict=True):
        _bare(axes)
        for name, colour, shift in (("running", POSITIVE, -0.2), ("batch", NEGATIVE, 0.2)):
            histogram = four.get(f"{name}_{what}")
            if histogram is None:
                continue
            places = [b.exponent + shift for b in histogram.bins]
            counts = [b.positive + b.negative for b in histogram.bins]
            told = f"{name}: {_told_bad(histogram)}" if histogram.bad else name
            axes.bar(places, counts, 0.4, color=colour, label=told)
            if not counts:
                axes.set(xticks=[], yticks=[])
        axes.set_title({"mean": "|mean|", "var": "variance"}[what], fontsize=9)
        axes.set_ylabel("channels", fontsize=8)
        _label_powers(axes.xaxis)
        legend = axes.legend(fontsize=7, frameon=False)
        for text in legend.get_texts():
            if ":" in text.get_text():
                text.set_color(ALARM)
    return _in_ink(figure, ink)


def svg(figure: Figure, label: str) -> str:
    """A figure for a page: in the colours of its text, readable to a screen reader.

    Args:
        figure: drawn with `PAGE_INK`.
        label: what it shows, in words.
    """
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    plain = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg", f'<svg role="img" aria-label="{plain}" style="max-width:100%"', 1)


PAGE_INK = _INK


def _figure(
    title: str, height: float, top: float = 0.89, bottom: float = 0.16, left: float = 0.1
) -> tuple[Figure, Any]:
    figure = _Figure(figsize=(6.4, height))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # Fixed margins: a layout engine draws everything twice, and a click is waiting.
    figure.subplots_adjust(left, bottom, 0.985, top)
    figure.text(left, 1 - 0.1 / height, title, fontsize=10, ha="left", va="top")
    _bare(axes)
    return figure, axes


def _bare(axes: Any) -> None:
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _in_ink(figure: Figure, ink: str | None) -> Figure:
    """Draws text, ticks and frames in one colour on a clear ground; alarms stay red."""
    if ink is None:
        return figure
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
        axes.tick_params(color=ink, labelcolor=ink)
        for spine in axes.spines.values():
            spine.set_color(ink)
    for text in figure.findobj(Text):
        if text.get_color() != ALARM:
            text.set_color(ink)
    return figure


def _draw_ranges(figure: Figure, low: int, high: int) -> None:
    """The powers of two that narrow dtypes can hold, as bars above the histogram."""
    (below,) = figure.axes
    box = below.get_position()
    axes = figure.add_axes((box.x0, box.y1 + 0.01, box.width, 0.15))
    axes.set_axis_off()
    axes.set_xlim(low - 0.5, high + 0.5)
    axes.set_ylim(-0.5, len(RANGES) - 0.5)
    for y, (name, (least, most)) in enumerate(RANGES.items()):
        start, end = max(least, low) - 0.5, min(most, high) + 0.5
        if start < end:
            axes.plot([start, end], [y, y], color="grey", linewidth=3, alpha=0.5)
        for edge in (least - 0.5, most + 0.5):
            if low - 0.5 < edge < high + 0.5:
                axes.plot([edge, edge], [y - 0.4, y + 0.4], color=ALARM, linewidth=2)
        label = name.replace("float8_", "f8 ")
        axes.text(low - 0.7, y, label, fontsize=6.5, ha="right", va="center")


def _counts(histogram: Histogram) -> str:
    parts = [f"{histogram.numel:,} numbers, {histogram.dtype}"]
    if histogram.absmax is not None:
        parts.append(f"largest {number(histogram.absmax)}")
    parts.append(f"{histogram.zeros:,} zero")
    parts.append(f"{histogram.subnormal:,} subnormal")
    if histogram.tensors > 1:
        parts.append(f"{histogram.tensors} tensors")
    if histogram.sampled:
        parts.append(f"bars: a sample of {histogram.binned:,}")
    return " · ".join(parts)


def _told_bad(histogram: Histogram) -> str:
    counts = ((histogram.nan, "NaN"), (histogram.posinf, "+Inf"), (histogram.neginf, "-Inf"))
    return ", ".join(f"{count:,} {name}" for count, name in counts if count)


def _exponent(histogram: Histogram | None) -> float:
    if histogram is None or not histogram.absmax:
        return math.nan
    return math.log2(histogram.absmax)


def _image(
    axes: Any,
    grid: list[list[float]],
    rows: tuple[float, float],
    colours: str,
    shares: bool = False,
) -> Any:
    """Draws a grid; shares are coloured from 0 on, so that a pale cell is a small share."""
    finite = [v for row in grid for v in row if not math.isnan(v)] + [0.0] * shares
    columns = len(grid[0]) if grid else 1
    return axes.imshow(
        grid or [[math.nan]],
        aspect="auto",
        origin="lower" if rows[0] < rows[1] else "upper",
        interpolation="nearest",
        cmap=colours,
        norm=Normalize(min(finite, default=0), max(finite, default=1)),
        extent=(-0.5, columns - 0.5, *rows),
    )


def _mark_bad(axes: Any, bad: Sequence[bool], y: float) -> None:
    columns = [x for x, is_bad in enumerate(bad) if is_bad]
    axes.plot(columns, [y] * len(columns), "v", color=ALARM, clip_on=False, markersize=7)


def _label_steps(axes: Any, steps: Sequence[int]) -> None:
    every = max(1, math.ceil(len(steps) / 12))
    places = list(range(0, len(steps), every))
    axes.set_xticks(places, [str(steps[x]) for x in places])
    axes.set_xlabel("step", fontsize=9)


def _label_powers(axis: Any) -> None:
    axis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    axis.set_major_formatter(lambda value, _position: "2" + str(round(value)).translate(_RAISED))


def _scale(figure: Figure, image: Any) -> None:
    beside = image.axes
    box = beside.get_position()
    beside.set_position((box.x0, box.y0, 0.9 - box.x0, box.height))
    bar = figure.colorbar(image, cax=figure.add_axes((0.915, box.y0, 0.018, box.height)))
    bar.ax.tick_params(labelsize=7)


def _short(name: str) -> str:
    return name if len(name) <= 34 else "…" + name[-33:]
