"""What a guard did: numbers and strings only."""

from __future__ import annotations

import dataclasses
from typing import Any

_SHOWN = 5  # failures listed when it is printed

ACTIONS = ("skipped", "restored buffers", "rolled back", "stopped")


@dataclasses.dataclass(frozen=True)
class GuardEvent:
    """One step that went bad.

    Attributes:
        step: 0-based number of the step; undone steps count.
        bad: names of what was not finite, e.g. `"loss"`, `"buffer norm.running_mean"`.
        action: `"skipped"`, `"restored buffers"`, `"rolled back"` or `"stopped"`.
        bundle: the file that was written of it, or an empty string.
    """

    step: int
    bad: tuple[str, ...]
    action: str
    bundle: str = ""

    def __str__(self) -> str:
        more = f" and {len(self.bad) - 3} more" if len(self.bad) > 3 else ""
        told = f"step {self.step}: not finite: {', '.join(self.bad[:3])}{more}; {self.action}"
        return f"{told}; bundle: {self.bundle}" if self.bundle else told


@dataclasses.dataclass(frozen=True)
class GuardReport:
    """What a guard has done so far.

    Attributes:
        steps: steps seen, undone ones included.
        checks: how many of them were checked.
        counts: how often each action was taken.
        events: the first failures in order, at most as many as the guard keeps.
        stopped: why it ended the loop, or an empty string.
        notes: what could not be done.
    """

    steps: int
    checks: int
    counts: dict[str, int]
    events: tuple[GuardEvent, ...] = ()
    stopped: str = ""
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> int:
        """How many steps went bad."""
        return sum(self.counts.values())

    @property
    def healthy(self) -> bool:
        """Whether nothing went bad."""
        return not self.failures and not self.stopped

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return {**dataclasses.asdict(self), "failures": self.failures, "healthy": self.healthy}

    def __str__(self) -> str:
        if self.healthy:
            lines = [f"✓ {self.steps} steps, nothing went bad"]
        else:
            counted = ", ".join(
                f"{self.counts[name]} {name}" for name in ACTIONS if name in self.counts
            )
            lines = [f"✗ {self.failures} of {self.steps} steps went bad: {counted}"]
        lines += [f"  {event}" for event in self.events[:_SHOWN]]
        if self.failures > _SHOWN:
            lines.append(f"  and {self.failures - _SHOWN} more")
        if self.stopped:
            lines.append(f"  stopped: {self.stopped}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])
