"""Snapshots of the last steps' starts, as many as were asked for and as there is room for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from nanhunt.core.snapshot.snapshot import Snapshot

_FIRST_SHARE = 0.8  # of the free memory: the step before is what trials often need
_FURTHER_SHARE = 0.25  # of the free memory: further ones are a convenience


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
