"""What a guard does with a step that went bad: one object for each policy, all in one table.

A new policy is one more `Policy` in the table, and a sentence in the docstring of `nanhunt.guard`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch.optim import Optimizer

from nanhunt.core.guard.undo import Undo
from nanhunt.core.snapshot.random_state import RandomState
from nanhunt.core.watch.step_facts import Sink, names

STOPPED = "stopped"  # what an event says when the loop was ended, whatever the policy


@dataclasses.dataclass
class BadStep:
    """A step that went bad, and the ways to put things back, for a policy to choose from.

    Attributes:
        undo: the snapshots.
        asked: the random state before the first batch of the step was made.
        optimizers: all that the guard knows.
        bad_state: tells which parameters, buffers and optimizer states are not finite now.
        undone: whether the step was undone whole; whatever the loop still does in it is undone
            as well.
        lost: shapes of tensors that could not be put back, or an empty string.
    """

    undo: Undo
    asked: RandomState
    optimizers: list[Optimizer]
    bad_state: Callable[[], list[Sink]]
    undone: bool = False
    lost: str = ""

    def undo_whole(self) -> None:
        """Puts everything back as at the start of the step."""
        self.undone = True
        self.lost = self.undo.now(self.asked)

    def lasts(self, change: Callable[[], None]) -> None:
        """Makes a change to stay, such as a smaller rate; call it after `undo_whole`."""
        change()
        self.undo.lasting.append(change)

    def bad_before(self) -> str:
        """Why the step cannot have been the only reason, once it is undone; or an empty string."""
        left = self.bad_state()
        return f"bad before the step began: {names(left)}" if left else ""


@dataclasses.dataclass(frozen=True)
class Policy:
    """What to do with bad steps.

    Attributes:
        name: what the user calls it.
        event: what the event of a bad step says was done with it.
        treat: deals with a bad step; returns why that does not do, or an empty string. It is
            called inside the first `optimizer.step()` that shows the step to be bad. What the
            loop still does in that step is undone to its start again, all optimizers' groups
            included; what is to stay nevertheless goes through `BadStep.lasts`.
        ends_loop: whether the loop ends with the first bad step.
        keeps_good: whether snapshots known to be good are kept, for `Undo.roll_back`.
    """

    name: str
    event: str
    treat: Callable[[BadStep], str]
    ends_loop: bool = False
    keeps_good: bool = False


def _undo(step: BadStep) -> str:
    step.undo_whole()
    return step.bad_before()


def _restore_buffers(step: BadStep) -> str:
    step.undo.buffers()
    left = step.bad_state()
    if not left:
        return ""
    step.undo.now(step.asked)
    return f"buffers alone do not help: {names(left)}"


def _roll_back(step: BadStep) -> str:
    step.undo_whole()
    step.undo.roll_back()
    return step.bad_before()


POLICIES = {
    policy.name: policy
    for policy in (
        Policy("stop", STOPPED, _undo, ends_loop=True),
        Policy("skip_batch", "skipped", _undo),
        Policy("restore_buffers", "restored buffers", _restore_buffers),
        Policy("rollback", "rolled back", _roll_back, keeps_good=True),
    )
}
DEFAULT = "stop"
