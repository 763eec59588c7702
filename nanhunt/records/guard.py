"""What guards did: in a training loop, and in an evaluation."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from nanhunt.records.record import Record
from nanhunt.render.guard import tell_evaluation, tell_guard

if TYPE_CHECKING:
    from nanhunt.render.story import Story


@dataclasses.dataclass(frozen=True)
class GuardEvent:
    """One step that went bad.

    Attributes:
        step: 0-based number of the step; undone steps count.
        bad: names of what was not finite, e.g. `"loss"`, `"buffer norm.running_mean"`.
        action: what was done, in a word of the policy's, or `"stopped"`.
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
class GuardReport(Record):
    """What a guard has done so far.

    Attributes:
        steps: steps seen, undone ones included.
        checks: how many of them were checked.
        counts: how often each action was taken.
        events: the first failures in order, at most as many as the guard keeps.
        stopped: why it ended the loop, or an empty string.
        notes: what could not be done.
        interrupted: whether the user stopped the loop.
        status: what it comes to: `"healthy"` (steps were checked, and nothing went bad),
            `"finding"` (steps went bad), `"interrupted"` (by the user or by an exception of the
            loop's own, and nothing went bad until then), `"internal_error"` (nanhunt itself
            failed, and nothing went bad until then) or `"nothing_watched"`. Worked out from the
            other fields when it is not given.
    """

    FORMAT: ClassVar[str] = "nanhunt.guard"
    LINES: ClassVar[int] = 12

    steps: int
    checks: int
    counts: dict[str, int]
    events: tuple[GuardEvent, ...] = ()
    stopped: str = ""
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    status: str = ""

    def __post_init__(self) -> None:
        """Files of versions that wrote no status have none."""
        if not self.status:
            object.__setattr__(self, "status", self._judged())

    @property
    def failures(self) -> int:
        """How many steps went bad."""
        return sum(self.counts.values())

    @property
    def healthy(self) -> bool:
        """Whether steps were checked, to the loop's own end, and nothing went bad."""
        return self.status == "healthy"

    def _judged(self) -> str:
        if self.failures or self.stopped:
            return "finding"
        if self.interrupted:
            return "interrupted"
        return "healthy" if self.checks else "nothing_watched"

    def story(self) -> Story:
        """How many steps went bad, and what was done with them."""
        return tell_guard(self)

    def derived(self) -> dict[str, Any]:
        """The count of failures, and whether there was none."""
        return {"failures": self.failures, "healthy": self.healthy}


@dataclasses.dataclass(frozen=True)
class Evaluation(Record):
    """What a guarded evaluation did.

    Attributes:
        calls: how often the model was called.
        finite: calls with no NaN and no +Inf in their output (-Inf alone is a mask).
        bad_inputs: calls that were given a NaN or a +Inf (-Inf alone is a mask here too).
        poisoned: parameters and buffers that were not finite when it began.
    """

    FORMAT: ClassVar[str] = "nanhunt.evaluation"
    LINES: ClassVar[int] = 12

    calls: int
    finite: int
    bad_inputs: int
    poisoned: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether there was something to evaluate, and all of it was finite."""
        return not self.poisoned and 0 < self.calls == self.finite

    def story(self) -> Story:
        """How many batches were valid, and why not all."""
        return tell_evaluation(self)

    def derived(self) -> dict[str, Any]:
        """Whether it is healthy."""
        return {"healthy": self.healthy}
