"""Interrupting the kernel while no cell runs.

ipykernel ignores SIGINT between cells; around each message it puts in Python's own handler and
afterwards back what was there (`Kernel.saved_sigint_handler`). Ours has to be in that place.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


class IdleInterrupt:
    """Calls a function when the kernel is interrupted while idle.

    Args:
        kernel: the running ipykernel; made while it runs a cell.
        call: called in the main thread; has to return at once.
    """

    def __init__(self, kernel: Any, call: Callable[[], object]) -> None:
        self._kernel = kernel
        self._call: Callable[[], object] | None = call
        self._before = getattr(kernel, "saved_sigint_handler", None)
        if self._before is not None:
            kernel.saved_sigint_handler = self._handle

    def remove(self) -> None:
        """Interrupts are ignored again, as between cells they were before."""
        self._call = None
        if getattr(self._kernel, "saved_sigint_handler", None) == self._handle:
            self._kernel.saved_sigint_handler = self._before

    def _handle(self, number: int, frame: Any) -> None:
        if self._call is not None:
            self._call()
        elif signal.getsignal(signal.SIGINT) == self._handle:  # removed from another thread
            signal.signal(signal.SIGINT, self._before)
