"""The batches that a hunt hands out itself, with a look ahead and one back."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from typing import Any

from nanhunt.core.snapshot.tape import Tape


class DataEndedError(Exception):
    """The iterable given as `data` has no more batches."""


class Batches:
    """An iterable of batches.

    Args:
        data: gives the batches.
        tape: what iterators in the step give; it must not take these for theirs.
        past: how many earlier batches to keep.

    Attributes:
        current: the batch of this step (or the one shifted to).
    """

    def __init__(self, data: Iterable[Any], tape: Tape, past: int = 1) -> None:
        self._source = iter(data)
        self._tape = tape
        self._ahead: deque[Any] = deque()
        self._past: deque[Any] = deque(maxlen=past)
        self._own: Any = None
        self.current: Any = None

    def advance(self) -> None:
        """Goes on to the next batch.

        Raises:
            DataEndedError: there is none.
        """
        if not self._look_ahead(1):
            raise DataEndedError
        self._past.append(self._own)
        self._own = self._ahead.popleft()
        self.current = self._own

    def step_back(self) -> None:
        """The batch before becomes the current one."""
        self._ahead.appendleft(self._own)
        self._own = self.current = self._past.pop()

    def shift(self, by: int) -> bool:
        """Makes the batch `by` steps away the current one (-1, 0, or ahead); False if none."""
        if by < 0:
            self.current = self._past[-1] if self._past else None
        elif by == 0:
            self.current = self._own
        elif self._look_ahead(by):
            self.current = self._ahead[by - 1]
        else:
            return False
        return True

    def _look_ahead(self, count: int) -> bool:
        with self._tape.not_recorded():  # these are kept here
            missing = max(count - len(self._ahead), 0)
            self._ahead.extend(itertools.islice(self._source, missing))
        return len(self._ahead) >= count
