"""What the steps print, the last lines of it."""

from __future__ import annotations

import threading
from collections import deque
from html import escape

_LINES = 200
_WIDTH = 400  # characters of a line that are kept
_SHOWN = 12_000  # characters in one message to the browser


class Log:
    """Takes text as a terminal would: a carriage return begins the line anew."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._open = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        """Appends text."""
        with self._lock:
            *whole, rest = (self._open + text).split("\n")
            self._lines.extend(self._last_written(line) for line in whole)
            self._open = rest[-_WIDTH * 4 :]

    def html(self) -> str:
        """The last lines, oldest first."""
        with self._lock:
            lines = [*self._lines, *([self._last_written(self._open)] if self._open else [])]
        text = "\n".join(lines)
        if len(text) > _SHOWN:
            text = "…" + text[-_SHOWN:]
        return escape(text)

    @staticmethod
    def _last_written(line: str) -> str:
        return next((part for part in reversed(line.split("\r")) if part), "")[:_WIDTH]
