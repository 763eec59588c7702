"""How a case is written down: a small program and what a hunt must say about it.

A failing case is a function that builds (model, step_fn) or (model, step_fn, options of the
hunt). The culprit line of its program ends with the comment `# culprit`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
    """A program and the expected finding; no expectation means a healthy program."""

    build: Callable[[], tuple[Any, ...]]
    expected: dict[str, Any] | None
    steps: int

    @property
    def name(self) -> str:
        return self.build.__name__


CASES: dict[str, Case] = {}


def failing(steps: int = 12, **expected: Any) -> Callable[[Any], Any]:
    """Registers a failing program; keywords are attributes of the finding."""
    return lambda build: _add(Case(build, expected, steps))


def healthy(steps: int = 4) -> Callable[[Any], Any]:
    """Registers a program in which nothing may be found."""
    return lambda build: _add(Case(build, None, steps))


def _add(case: Case) -> Any:
    assert case.name not in CASES, f"two cases are called {case.name}"
    CASES[case.name] = case
    return case.build
