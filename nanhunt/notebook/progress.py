"""Progress of a hunt in a notebook: one display, updated in place."""

from __future__ import annotations

import sys
from typing import Any

from IPython.display import display


class NotebookProgress:
    """Shows `step 7 of 100` where a front end can update a display, else nothing but the end.

    Args:
        shell: the running IPython.
    """

    def __init__(self, shell: Any) -> None:
        self._handle: Any = None
        self._notebook = getattr(shell, "kernel", None) is not None
        self._terminal = not self._notebook and sys.stderr.isatty()

    def __call__(self, done: int, total: int, what: str) -> None:
        """Called by the hunt; never more often than ten times a second."""
        line = (
            f"nanhunt: step {done:,} of {total:,}, {what}" if total else f"nanhunt: step {done:,}"
        )
        if self._terminal:
            sys.stderr.write("\n" if what == "done" else f"\r{line}   ")
            sys.stderr.flush()
        elif self._notebook and what == "done":
            self._clear()
        elif self._notebook:
            self._update(line, done, total)

    def _update(self, line: str, done: int, total: int) -> None:
        bar = f'<progress max="{total}" value="{done}" aria-label="steps"></progress> '
        bundle = {"text/plain": line, "text/html": f"<div>{bar if total else ''}{line}</div>"}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def _clear(self) -> None:
        if self._handle is not None:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)
            self._handle = None
