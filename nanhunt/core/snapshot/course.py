"""The snapshots of this step and of those before it, and going back through them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from nanhunt.core.snapshot.snapshot import Snapshot
from nanhunt.core.snapshot.tape import Batches, Tape
from nanhunt.errors import UsageError

_FIRST_SHARE = 0.8  # of the free memory: the step before is what trials often need
_FURTHER_SHARE = 0.25  # of the free memory: further ones are a convenience


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

    def next_batch(self) -> None:
        """Before a step begins: the batch that it is given, if it is a new one.

        Raises:
            DataEndedError: there is no batch for it.
        """
        if self.batches is not None and not self.undone:
            self.batches.advance()

    def begin(self) -> None:
        """A step begins, a new one or the undone one again."""
        if not self.undone:
            self.tape.next_step()
            if self._begun:
                self.ring.advance()
        # As good as undone until there is its snapshot, should that fail.
        self.undone = self._begun = True
        self.number = self.position
        self.snapshot.begin()
        self.undone = False

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
        if self.batches is not None:
            self.batches.release()


class Ring:
    """The snapshot of the step at hand and those of the steps before it.

    Each holds what its own step writes, so that undoing several steps means restoring one
    snapshot after the other, newest first.

    Args:
        make: makes an empty snapshot.
        current: the one for the first step.
        depth: how many steps before the one at hand can be undone as well.
    """

    def __init__(self, make: Callable[[], Snapshot], current: Snapshot, depth: int) -> None:
        self._make = make
        self._depth = depth
        self.current = current
        self._older: deque[Snapshot] = deque()
        self._spare: list[Snapshot] = []

    @property
    def previous(self) -> Snapshot | None:
        """The snapshot of the step before."""
        return self._older[-1] if self._older else None

    @property
    def nbytes(self) -> int:
        """Bytes held in copies of tensors, all snapshots together."""
        return sum(kept.nbytes for kept in (self.current, *self._older, *self._spare))

    def __len__(self) -> int:
        """How many steps before the one at hand can be undone as well."""
        return len(self._older)

    def advance(self) -> None:
        """A new step begins: the current snapshot becomes an older one."""
        if self.current.missing or not self._depth:
            return
        fresh = self._next_one()
        if fresh is not None:
            self._older.append(self.current)
            self.current = fresh

    def go_back(self) -> None:
        """The step before becomes the current one; its snapshot is not restored here."""
        self._spare.append(self.current)
        self.current = self._older.pop()

    def release(self) -> None:
        """Lets go of everything."""
        for snapshot in (self.current, *self._older, *self._spare):
            snapshot.release()
        self._older.clear()
        self._spare.clear()

    def _next_one(self) -> Snapshot | None:
        if self._spare:
            return self._spare.pop()
        if len(self._older) < self._depth:
            made = self._make()
            if made.fits(_FURTHER_SHARE if self._older else _FIRST_SHARE):
                return made
            self._depth = len(self._older)
        return self._older.popleft() if self._older else None
