"""The options of a hunt, once: the call, the magic, its help and its completion read this."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Option:
    """One keyword of `nanhunt.hunt` and, with dashes, one option of the magic.

    Attributes:
        name: the keyword.
        kind: `"int"`, `"flag"` (on unless written `--no-NAME`) or `"object"` (the name
            of a variable in the notebook).
        default: what holds when it is not given.
        help: one line.
    """

    name: str
    kind: str
    default: Any
    help: str

    @property
    def flag(self) -> str:
        """The spelling in the magic, e.g. `--no-complex-half`."""
        dashed = self.name.replace("_", "-")
        return f"--no-{dashed}" if self.kind == "flag" and self.default else f"--{dashed}"


PREFLIGHT = Option(
    "preflight", "flag", False, "no hunt: one observed step and what it is made of, then undone"
)

PANEL = Option("panel", "flag", True, "show the interactive panel where widgets can be shown")
PAUSED = Option("paused", "flag", False, "open the panel before the first step, and do not hunt")

OPTIONS: tuple[Option, ...] = (
    Option("steps", "int", 100, "stop after this many steps when nothing bad happens"),
    Option("optimizer", "object", None, "optimizer or a list of them; found by itself if absent"),
    Option("scaler", "object", None, "GradScaler or a list of them; found by itself if absent"),
    Option("data", "object", None, "iterable of batches; step_fn then takes one batch"),
    Option("complex_half", "flag", True, "look for ComplexHalf births in the first step"),
    Option("snapshot", "flag", True, "keep the state before each step, so that it can be replayed"),
    Option("trials", "flag", True, "try remedies by replaying the failing step"),
    Option("confirm", "int", 3, "further steps that a remedy must hold for to count as a cure"),
    Option("trial_seconds", "int", None, "try no more remedies after so many seconds (120)"),
    Option("back", "int", None, "how many steps before the last one can be undone (1; panel: 8)"),
    Option("progress", "flag", True, "show progress"),
)


def options_for(cell: bool) -> list[Option]:
    """The options of the line magic, or those that make sense around a loop."""
    if cell:
        return [option for option in OPTIONS if option.name not in ("steps", "data", "back")]
    return [*OPTIONS, PREFLIGHT, PAUSED, PANEL]
