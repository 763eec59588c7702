"""Sends changes of widgets to the browser: soon, but never more than nine messages a second.

Jupyter's server cuts off an output that sends too much, and a worker that trains fast must not
flood a slow connection: what changes between two messages is sent once, as it is then.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

_MESSAGES = 9  # in any second
_SETTLE = 0.1  # seconds to wait for a running job to end before that it runs is shown
_BUSY = 0.4  # seconds between two messages of how far a job is; the rest is for its end


class Painter:
    """A thread that calls `paint` after `touch`, and sends what it puts out.

    Args:
        paint: puts changes with `put`, most important first; runs on the painter's thread.
        busy: whether a job is running, whose end will soon touch again.
    """

    def __init__(self, paint: Callable[[Painter], None], busy: Callable[[], bool]) -> None:
        self._paint = paint
        self._busy = busy
        self._dirty = threading.Event()
        self._sent: deque[float] = deque(maxlen=_MESSAGES)
        self._shown: dict[tuple[int, str], Any] = {}
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="nanhunt-panel", daemon=True)
        self.error: Exception | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def touch(self) -> None:
        """Something has changed; returns at once."""
        self._dirty.set()

    def put(self, widget: Any, name: str, value: Any) -> None:
        """Sets a widget's trait if it is not so already; waits where too much was sent."""
        if self._shown.get((id(widget), name)) == value or self._ended:
            return
        if len(self._sent) == _MESSAGES:
            wait = self._sent[0] + 1 - time.monotonic()
            if wait > 0:
                time.sleep(wait)
        self._sent.append(time.monotonic())
        self._shown[id(widget), name] = value
        setattr(widget, name, value)

    def forget(self, widget: Any, name: str) -> None:
        """The person has changed this trait: what was shown is no longer known."""
        self._shown.pop((id(widget), name), None)

    def end(self) -> None:
        """Paints once more and ends the thread."""
        self.touch()
        self._ended = True
        if threading.current_thread() is not self._thread:
            self._thread.join(2)

    def _work(self) -> None:
        while not self._ended:
            self._dirty.wait()
            if self._ended:
                return
            self._wait_while_busy(_SETTLE)
            busy = self._busy()
            self._dirty.clear()
            try:
                self._paint(self)
            except Exception as error:  # noqa: BLE001  a picture must not end the training
                self.error = error
            if busy:
                self._wait_while_busy(_BUSY)

    def _wait_while_busy(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._busy() and not self._ended and time.monotonic() < until:
            time.sleep(0.005)
