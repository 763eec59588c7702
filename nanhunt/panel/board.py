"""The rows of the module list: each module's state in a glyph, a word and a colour."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from nanhunt.core.stepping.gauges import ACTIVATION, GRADIENT, StepGauges
from nanhunt.interactive import Hunt
from nanhunt.records.histogram import Histogram
from nanhunt.render.wording import number

PAGE = 200  # rows in one page of the list
_NEAR = 8  # a largest magnitude within this factor of the dtype's own is near overflow
_MOSTLY = 0.5  # share of subnormal numbers in those that are not zero


@dataclasses.dataclass(frozen=True)
class State:
    """What a module's state is called, with its glyph and colour."""

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
        self._kept: tuple[Any, list[Row]] = (None, [])

    def rows(self, search: str = "", suspicious: bool = False, as_tree: bool = False) -> list[Row]:
        """The rows to show.

        Args:
            search: part of a name, of a class or of a state.
            suspicious: only modules about which something is.
            as_tree: in the order of the tree instead of execution.
        """
        modules = self._hunt.module_tree()
        wanted = search.strip().lower()
        return [
            row
            for row in self._all_rows(modules, as_tree)
            if (row.state.suspicious or not suspicious)
            and wanted in f"{row.path} {type(modules[row.path]).__name__} {row.state.word}".lower()
        ]

    def _all_rows(self, modules: Mapping[str, Any], as_tree: bool) -> list[Row]:
        last, findings = self._hunt.gauges.last, self._hunt.findings
        known = (id(modules), as_tree, last, findings)
        if self._kept[0] != known:
            names: Iterable[str] = modules
            if last is not None and not as_tree:
                ran = dict.fromkeys(path for path in last.order if path in modules)
                names = [*ran, *(path for path in modules if path not in ran)]
            critical = (f for f in findings if f.severity == "critical")
            producers = {f.module for f in critical if f.module is not None}
            self._kept = (known, [self._row(path, last, producers) for path in names])
        return self._kept[1]

    @staticmethod
    def _row(path: str, last: StepGauges | None, producers: set[str]) -> Row:
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
