"""Sends changes of widgets to the browser: soon, but never more than nine messages a second.

Jupyter's server cuts off an output that sends too much, and a worker that trains fast must not
flood a slow connection: what changes between two messages is sent once, as it is then.
"""

from __future__ import annotations

import atexit
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
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="nanhunt-panel", daemon=True)
        self.error: Exception | None = None

    def start(self) -> None:
        """Starts the thread."""
        atexit.register(self.end)  # a thread that is ended inside matplotlib's C++ aborts
        self._thread.start()

    def touch(self) -> None:
        """Something has changed; returns at once."""
        self._dirty.set()

    def put(self, widget: Any, **traits: Any) -> None:
        """Sets traits of a widget in one message; waits where too much was sent.

        A trait that has the value already costs nothing. A function is called for its value
        when there is room to send: a person may have changed things meanwhile.
        """
        if self._ended or all(getattr(widget, name) == to for name, to in traits.items()):
            return

        def change() -> None:
            with widget.hold_sync():
                for name, value in traits.items():
                    setattr(widget, name, value() if callable(value) else value)

        self.send(change)

    def send(self, send: Callable[[], None]) -> None:
        """Calls what sends one message; waits where too much was sent."""
        if len(self._sent) == _MESSAGES:
            time.sleep(max(0.0, self._sent[0] + 1 - time.monotonic()))
        if self._ended:
            return
        send()
        self._sent.append(time.monotonic())  # afterwards: a busy machine may take its time

    @property
    def is_own_thread(self) -> bool:
        """Whether this is called by the painter itself."""
        return threading.current_thread() is self._thread

    def end(self) -> None:
        """Ends the thread."""
        self._ended = True
        self.touch()
        atexit.unregister(self.end)
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
                self.error = None
            except Exception as error:  # noqa: BLE001  a picture must not end the training
                self.error = error
            if busy:
                self._wait_while_busy(_BUSY)

    def _wait_while_busy(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._busy() and not self._ended and time.monotonic() < until:
            time.sleep(0.005)
