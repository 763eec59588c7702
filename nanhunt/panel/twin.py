"""Shows the report as a plain output of the cell too: saved notebooks have no widgets."""

from __future__ import annotations

from typing import Any

from IPython.display import display

from nanhunt.records.report import Report


class StaticTwin:
    """An output beside the panel that shows the last report, also without a kernel."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown: Report | None = None

    def open(self) -> None:
        """Takes its place in the running cell's outputs, empty as yet."""
        self._handle = display({"text/plain": ""}, raw=True, display_id=True)

    def show(self, report: Report) -> None:
        """Shows a report unless it stands there already; may be called from any thread."""
        if report != self._shown:
            self._shown = report
            self._handle.update(report._repr_mimebundle_(), raw=True)
