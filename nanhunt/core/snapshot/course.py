"""Where the training stands among its steps, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nanhunt.core.batches import Batches
from nanhunt.core.ring import Ring
from nanhunt.core.snapshot.snapshot import Snapshot
from nanhunt.core.snapshot.tape import Tape
from nanhunt.errors import UsageError


class Course:
    """Moves snapshots, recorded iterators and batches together, one step at a time.

    Args:
        make: makes an empty snapshot.
        first: the snapshot of the first step.
        data: the batches that the hunt hands out itself, if any.
        depth: how many steps before the last one can be undone.

    Attributes:
        number: the step that ran last, or runs.
        position: the step at whose start the training stands.
        undone: whether that is the one that ran last.
    """

    def __init__(
        self,
        make: Callable[[], Snapshot],
        first: Snapshot,
        data: Iterable[Any] | None,
        depth: int,
    ) -> None:
        self.tape = Tape(depth)
        self.ring = Ring(make, first, depth)
        self.batches = Batches(data, self.tape, depth) if data is not None else None
        self.number = self.position = 0
        self.undone = False
        self._begun = False

    @property
    def snapshot(self) -> Snapshot:
        """Of the step that ran last, or runs."""
        return self.ring.current

    def begin(self) -> None:
        """A step begins, a new one or the undone one again.

        Raises:
            DataEndedError: there is no batch for it.
        """
        if not self.undone:
            if self.batches is not None:
                self.batches.advance()
            self.tape.next_step()
            if self._begun:
                self.ring.advance()
        self.undone, self._begun = False, True
        self.number = self.position
        self.snapshot.begin()

    def end(self) -> None:
        """The step has run."""
        self.position = self.number + 1

    def rewind(self) -> None:
        """Puts everything back to the start of the last step; its batches come again."""
        self.snapshot.restore()
        self.tape.rewind()
        self.undone = True
        self.position = self.number

    def back(self) -> None:
        """Undoes the last step, or, where that is undone already, the one before it.

        Raises:
            UsageError: there is nothing left that could be undone.
        """
        if self.snapshot.missing:
            raise UsageError(f"the last step cannot be undone ({self.snapshot.missing})")
        if not self._begun:
            raise UsageError("no step has been run yet")
        if self.undone:
            if not len(self.ring):
                raise UsageError(
                    f"step {self.position} is as far back as snapshots go; Hunt(back=N) keeps more"
                )
            self.ring.go_back()
            self.tape.step_back()
            if self.batches is not None:
                self.batches.step_back()
            self.number -= 1
        self.rewind()

    def release(self) -> None:
        """Lets go of everything that was kept."""
        self.ring.release()
        self.tape = Tape()
