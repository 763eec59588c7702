"""Ctrl-C held back while something is being installed, removed or restored."""

from __future__ import annotations

import contextlib
import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

_NOTHING = contextlib.nullcontext()


def uninterrupted() -> AbstractContextManager[None]:
    """Delays SIGINT to the end of a `with` block; only the main thread ever receives it.

    Of blocks inside each other the outermost counts: to change the handler is not cheap.
    """
    if _Held.now or threading.current_thread() is not threading.main_thread():
        return _NOTHING
    return _Held()


class _Held(AbstractContextManager[None]):
    """The outermost block in the main thread."""

    now = False  # whether the main thread is in one

    def __enter__(self) -> None:
        self._pending: list[FrameType | None] = []
        self._before: Any = signal.getsignal(signal.SIGINT)
        if callable(self._before):
            signal.signal(signal.SIGINT, self._wait)
            _Held.now = True

    def __exit__(self, *_: object) -> None:
        if callable(self._before):
            _Held.now = False
            signal.signal(signal.SIGINT, self._before)
            if self._pending:
                self._before(signal.SIGINT, self._pending[0])

    def _wait(self, _number: int, frame: FrameType | None) -> None:
        self._pending.append(frame)
