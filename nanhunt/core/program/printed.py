"""Captures what one thread prints, while other threads print as before."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from nanhunt.core.attached.patches import clear, replace

Sink = Callable[[str], None]

_sinks: dict[int, list[Sink]] = {}
_routers: list[Callable[[], None]] = []  # take them off again
_lock = threading.Lock()


class _Router:
    """Stands in the place of a stream and sends what marked threads write elsewhere."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        sinks = _sinks.get(threading.get_ident())
        if not sinks:
            return int(self.stream.write(text) or 0)
        sinks[-1](text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def printed_to(sink: Sink) -> Iterator[None]:
    """Hands what this thread writes to stdout and stderr to `sink` instead."""
    thread = threading.get_ident()
    with _lock:
        _sinks.setdefault(thread, []).append(sink)
        for name in ("stdout", "stderr"):
            clear(sys, name)
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, _Router):
                _routers.append(replace(sys, name, _Router))
    try:
        yield
    finally:
        with _lock:
            _sinks[thread].pop()
            if not _sinks[thread]:
                del _sinks[thread]
            if not _sinks:
                while _routers:
                    _routers.pop()()
                for name in ("stdout", "stderr"):
                    clear(sys, name)


def unheard(_text: str) -> None:
    """A sink for what nobody is to see."""
