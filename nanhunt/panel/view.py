"""What the panel shows of a hunt: its state, the module list, a picture, the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nanhunt.interactive import Hunt
from nanhunt.panel import status
from nanhunt.panel.board import PAGE, Board
from nanhunt.panel.face import NO_BREAKPOINTS, Face
from nanhunt.panel.log import Log
from nanhunt.panel.painter import Painter
from nanhunt.panel.picture import Picture
from nanhunt.panel.style import list_style


class View:
    """Puts a hunt's state into the widgets, on the painter's thread.

    Args:
        hunt: shown.
        face: written to.
        log: what the steps printed.
    """

    def __init__(self, hunt: Hunt, face: Face, log: Log) -> None:
        self._hunt, self._face, self._log = hunt, face, log
        self._board = Board(hunt)
        self._picture = Picture(hunt)
        self._page = 0
        self._paths: list[str] = []
        self._followed: Any = None
        self._follows = False

    # -- what is looked at ----------------------------------------------------------------------

    @property
    def chosen(self) -> str:
        """The path of the module whose picture is shown."""
        return self._picture.path

    def choose(self, index: int | None) -> None:
        """Shows the module in this row of the list."""
        if index is not None and index < len(self._paths):
            self._picture.path = self._paths[index]

    def turn(self, by: int) -> None:
        """Turns the list's pages; 0 for the first."""
        self._page = max(0, self._page + by) if by else 0

    def follow(self) -> None:
        """The list goes along with a pause, and to the culprit of a finding, once."""
        here, finding = self._hunt.here, status.current_finding(self._hunt)
        target = here or finding
        if target is self._followed:
            return
        self._followed = target
        path = here.path if here is not None else finding.module if finding else None
        if path is None or path not in self._hunt.module_tree():
            return
        self._picture.path, self._follows = path, True
        rows = self._rows()
        index = next((i for i, row in enumerate(rows) if row.path == path), 0)
        self._page = index // PAGE

    # -- painting -------------------------------------------------------------------------------

    def paint_first(self) -> None:
        """Before the widgets are displayed nothing is sent twice."""
        self._face.status.value = status.status_html(self._hunt, "", "")
        self._face.style.value = list_style(self._face.mark, [])

    def paint_status(self, painter: Painter, progress: str, notice: str) -> None:
        """The lines above the buttons."""
        painter.put(self._face.status, value=status.status_html(self._hunt, progress, notice))

    def paint(self, painter: Painter, busy: Callable[[], bool]) -> None:
        """Everything below the status, most important first."""
        hunt, face = self._hunt, self._face
        if not busy():
            kind = face.kind.value
            painter.put(face.picture, value=self._picture.html(kind, hunt.here))
            self._paint_list(painter)
        self._paint_log(painter)
        self._paint_breakpoints(painter)
        for name, button in face.buttons.items():  # asked each time: sending may have to wait
            painter.put(button, disabled=not status.enabled(hunt, busy())[name])

    def paint_last(self) -> None:
        """The hunt is over: nothing can be clicked any more."""
        face = self._face
        face.status.value = status.status_html(self._hunt, "", "")
        for button in (*face.buttons.values(), face.add, face.remove):
            button.disabled = True

    def _row_of_choice(self) -> int | None:
        chosen = self._picture.path
        return self._paths.index(chosen) if chosen in self._paths else None

    def _rows(self) -> Any:
        face = self._face
        return self._board.rows(face.search.value, face.suspicious.value, face.tree.value)

    def _paint_list(self, painter: Painter) -> None:
        face, rows = self._face, self._rows()
        pages = max(1, -(-len(rows) // PAGE))
        self._page = min(self._page, pages - 1)
        shown = rows[self._page * PAGE : (self._page + 1) * PAGE]
        width = min(44, max((11, *(len(row.path) + 2 for row in shown))))
        self._paths = [row.path for row in shown]
        labels = tuple(row.text(width, face.tree.value) for row in shown)
        if labels != tuple(face.modules.options) or self._follows:
            self._follows = False
            painter.put(face.modules, options=labels, index=self._row_of_choice)
        colours = [row.state.colour for row in shown]
        painter.put(face.style, value=list_style(face.mark, colours))
        first = self._page * PAGE
        told = f"{first + 1:,}–{first + len(shown):,} of {len(rows):,}" if rows else "none"
        painter.put(face.pages, value=told)

    def _paint_log(self, painter: Painter) -> None:
        text = self._log.html()
        log = f'<pre class="nh-log" tabindex="0" aria-label="printed by the steps">{text}</pre>'
        painter.put(self._face.log, value=log if text else "")

    def _paint_breakpoints(self, painter: Painter) -> None:
        labels = tuple(str(point) for point in self._hunt.breakpoints)
        painter.put(self._face.points, options=labels or NO_BREAKPOINTS)
        painter.put(self._face.remove, disabled=not labels)
