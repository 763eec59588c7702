"""Batches handed out during a step, kept so that a replay gets the very same ones.

Every DataLoader iterator is covered by one patch; other iterators (a generator in a variable
of the step function) are wrapped where they stand. With each batch goes the state of the
random generators after it was made: a sampler or a transform may have drawn from them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nanhunt.core.attached.patches import patch
from nanhunt.core.snapshot.random_state import RandomState
from nanhunt.torch_private import LoaderIterator

_Entry = tuple[Any, StopIteration | None, RandomState]


class Tape:
    """Records what iterators gave during a step, and gives it again after `rewind`.

    Args:
        past: of how many earlier steps to keep it.
    """

    def __init__(self, past: int = 1) -> None:
        self.items: list[_Entry] = []
        self._past: deque[list[_Entry]] = deque(maxlen=past)
        self._waiting: deque[_Entry] = deque()
        self._dropped: list[_Entry] = []
        self._inside = False
        self._take_off: Callable[[], None] | None = None

    def next_step(self) -> None:
        """A new step begins; the batches of the one before are kept apart."""
        self._past.append(self.items)
        self.items = []

    def step_back(self) -> None:
        """The step before is undone as well: what it was given comes again."""
        self.rewind()
        self.items = self._past.pop() if self._past else []
        self.rewind()

    def start_step(self) -> None:
        """Forgets the batches of the run before."""
        self.items = []

    def rewind(self) -> None:
        """What was recorded in this step comes again, then the iterators go on."""
        self._waiting = deque([*self._dropped, *self.items, *self._waiting])
        self.items, self._dropped = [], []

    def go_back(self) -> None:
        """After `rewind`: the batches of the step before come first."""
        self._waiting.extendleft(reversed(self._past[-1] if self._past else []))

    def drop(self, count: int) -> None:
        """After `rewind`: leaves out the next batches until the next `rewind`."""
        self._dropped = [self._waiting.popleft() for _ in range(count)]

    def take(self, source: Callable[[], Any]) -> Any:
        """Returns the next recorded item, or asks `source` and records."""
        if self._inside:  # a generator that itself reads a DataLoader: record the outer one
            return source()
        if self._waiting:
            entry = self._waiting.popleft()
            entry[2].restore()
        else:
            self._inside = True
            try:
                entry = (source(), None, RandomState.now())
            except StopIteration as end:
                entry = (None, end, RandomState.now())
            finally:
                self._inside = False
        self.items.append(entry)
        if entry[1] is not None:
            raise entry[1]
        return entry[0]

    @contextlib.contextmanager
    def not_recorded(self) -> Iterator[None]:
        """What is taken from iterators in this block goes past the tape."""
        before, self._inside = self._inside, True
        try:
            yield
        finally:
            self._inside = before

    def install(self) -> None:
        """Patches DataLoader's iterators."""
        self._take_off = patch(LoaderIterator, "__next__", self._taped)

    def remove(self) -> None:
        """Takes the patch off again."""
        if self._take_off is not None:
            self._take_off()
            self._take_off = None

    def _taped(self, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def __next__(iterator: Any) -> Any:  # noqa: N807
            return self.take(lambda: original(iterator))

        return __next__


class TapedIterator:
    """An iterator whose items go over a tape."""

    def __init__(self, inner: Iterator[Any], tape: Tape) -> None:
        self.inner = inner
        self._tape = tape

    def __iter__(self) -> TapedIterator:
        return self

    def __next__(self) -> Any:
        return self._tape.take(lambda: next(self.inner))


class DataEndedError(Exception):
    """The iterable given as `data` has no more batches."""


class Batches:
    """The batches that a hunt hands out itself, with a look ahead and some back.

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

    def release(self) -> None:
        """Lets go of every batch and of their source, whose workers may end."""
        self._source = iter(())
        self._ahead.clear()
        self._past.clear()
        self._own = self.current = None

    def _look_ahead(self, count: int) -> bool:
        with self._tape.not_recorded():  # these are kept here
            missing = max(count - len(self._ahead), 0)
            self._ahead.extend(itertools.islice(self._source, missing))
        return len(self._ahead) >= count
