"""Progress, told at most ten times a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_INTERVAL = 0.1  # seconds


class Progress:
    """Passes progress on to a callable, or writes one line to a terminal.

    Args:
        how: True for a line on stderr when it is a terminal, False for silence, or a
            callable `(steps_done, steps_total, what)`.
    """

    def __init__(self, how: bool | Callable[[int, int, str], None]) -> None:
        self._call = how if callable(how) else None
        self._line = how is True and sys.stderr is not None and sys.stderr.isatty()
        self._last = 0.0

    def show(self, done: int, total: int, what: str) -> None:
        """Tells how far the hunt is, unless it just did."""
        now = time.monotonic()
        if now - self._last >= _INTERVAL:
            self._last = now
            self._tell(done, total, what)

    def finish(self, done: int, total: int) -> None:
        """Tells the end, always."""
        self._tell(done, total, "done")
        if self._line:
            sys.stderr.write("\n")

    def _tell(self, done: int, total: int, what: str) -> None:
        if self._call is not None:
            self._call(done, total, what)
        elif self._line:
            sys.stderr.write(f"\rnanhunt: step {done} of {total}, {what}   ")
            sys.stderr.flush()
