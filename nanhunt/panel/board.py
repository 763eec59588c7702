"""The rows of the module list: each module's state in a glyph, a word and a colour."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch

from nanhunt.core.stepping.gauges import ACTIVATION, GRADIENT
from nanhunt.histogram import Histogram
from nanhunt.interactive import Hunt
from nanhunt.render.wording import number

PAGE = 200  # rows in one page of the list
_NEAR = 8  # a largest magnitude within this factor of the dtype's own is near overflow
_MOSTLY = 0.5  # share of subnormal numbers in those that are not zero


@dataclasses.dataclass(frozen=True)
class State:
    """What is to be said of a module at one glance."""

    glyph: str
    word: str
    colour: str
    suspicious: bool


NOT_RUN = State("○", "not run", "#888888", False)
CLEAN = State("●", "clean", "#2e9e5b", False)
NEAR_OVERFLOW = State("▲", "near overflow", "#c77700", True)
UNDERFLOW = State("▽", "underflow", "#c77700", True)
INF = State("∞", "Inf", "#d62f2f", True)
NAN = State("✖", "NaN", "#d62f2f", True)
INF_GRADIENT = State("∞", "Inf gradient", "#d62f2f", True)
NAN_GRADIENT = State("✖", "NaN gradient", "#d62f2f", True)
COMPLEX_HALF = State("ℂ", "ComplexHalf", "#a03bd8", True)
PRODUCER = State("◆", "producer", "#d6006e", True)


@dataclasses.dataclass(frozen=True)
class Row:
    """One module in the list."""

    path: str
    state: State
    dtype: str
    absmax: float | None
    zeros: float | None

    def text(self, width: int, as_tree: bool) -> str:
        """The row in columns, for a font of fixed width."""
        name = self.path or "(the model)"
        if as_tree and self.path:
            name = "  " * (self.path.count(".") + 1) + self.path.rpartition(".")[2]
        name = name if len(name) <= width else "…" + name[-(width - 1) :]
        zeros = "" if self.zeros is None else f"{self.zeros:.0%} zero"
        absmax = "" if self.absmax is None else number(self.absmax)
        word = f"{self.state.glyph} {self.state.word:<13}"
        return f"{word} {name:<{width}} {self.dtype:<9}{absmax:>10}{zeros:>10}"


class Board:
    """Rows of all modules of a hunt, filtered, ordered and cut into pages."""

    def __init__(self, hunt: Hunt) -> None:
        self._hunt = hunt

    def rows(self, search: str = "", suspicious: bool = False, as_tree: bool = False) -> list[Row]:
        """The rows to show.

        Args:
            search: part of a name, of a class or of a state.
            suspicious: only modules about which something is.
            as_tree: in the order of the tree instead of execution.
        """
        modules = self._hunt.module_tree()
        names: Iterable[str] = modules
        last = self._hunt.gauges.last
        if last is not None and not as_tree:
            ran = [path for path in last.order if path in modules]
            names = [*ran, *(path for path in modules if path not in set(ran))]
        wanted = search.strip().lower()
        producers = self._producers()
        found = []
        for path in names:
            row = self._row(path, producers)
            told = f"{path} {type(modules[path]).__name__} {row.state.word}".lower()
            if wanted in told and (row.state.suspicious or not suspicious):
                found.append(row)
        return found

    def _producers(self) -> set[str]:
        findings = self._hunt.report.findings
        return {f.module for f in findings if f.severity == "critical" and f.module is not None}

    def _row(self, path: str, producers: set[str]) -> Row:
        last = self._hunt.gauges.last
        activation = last.get(ACTIVATION, path) if last else None
        gradient = last.get(GRADIENT, path) if last else None
        state = PRODUCER if path in producers else state_of(activation, gradient)
        if activation is None:
            return Row(path, state, "", None, None)
        return Row(path, state, activation.dtype, activation.absmax, activation.zero_share)


def state_of(activation: Histogram | None, gradient: Histogram | None) -> State:
    """The worst that is to be said of a module: first of its output, then of its gradient."""
    tests = (
        (COMPLEX_HALF, activation, lambda h: h.dtype == "complex32"),
        (NAN, activation, lambda h: h.nan > 0),
        (INF, activation, lambda h: h.bad > 0),
        (NAN_GRADIENT, gradient, lambda h: h.nan > 0),
        (INF_GRADIENT, gradient, lambda h: h.bad > 0),
        (NEAR_OVERFLOW, activation, _is_near_overflow),
        (NEAR_OVERFLOW, gradient, _is_near_overflow),
        (UNDERFLOW, activation, _is_mostly_underflow),
        (UNDERFLOW, gradient, _is_mostly_underflow),
    )
    if activation is None and gradient is None:
        return NOT_RUN
    return next((state for state, h, test in tests if h is not None and test(h)), CLEAN)


def _is_mostly_underflow(histogram: Histogram) -> bool:
    return histogram.underflow > _MOSTLY


def _is_near_overflow(histogram: Histogram) -> bool:
    dtype = getattr(torch, histogram.dtype)
    largest = torch.finfo(dtype).max
    return histogram.absmax is not None and histogram.absmax * _NEAR > largest
