"""The panel's comm to front ends that know nanhunt: sends the state, receives commands.

One comm per panel, whose messages are small JSON. From here: `{"hunt": {...}}` when something
changed. From a front end: `{"command": "step"}`, or `{"ask": "state"}` by one that came late (a
reloaded page, a second tab) and found the comm by its target name. No key is called "state":
nbclient would save what stands under it as a widget's.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import comm  # ipywidgets is built upon it

TARGET = "nanhunt.hunt"


class Remote:
    """A comm, opened at once, that tells a state and hands on commands.

    Args:
        obey: is given the name of a command, on any thread; has to return at once.
        asked: called when a front end wants to be told the state anew.
    """

    def __init__(self, obey: Callable[[str], object], asked: Callable[[], object]) -> None:
        self._obey, self._asked = obey, asked
        self._told: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._comm = self._listen(comm.create_comm(target_name=TARGET, data={}))

    def news(self, state: dict[str, Any]) -> bool:
        """Whether this is something else than what was told last."""
        return self._comm is not None and state != self._told

    def tell(self, state: dict[str, Any]) -> None:
        """Sends a state; nothing once it is closed."""
        with self._lock:  # nothing is said after the end, whichever thread brings it
            if self._comm is not None:
                self._told = state
                self._comm.send({"hunt": state})

    def close(self) -> None:
        """Says that there is nothing more to control."""
        with self._lock:
            closing, self._comm = self._comm, None
        if closing is not None:
            closing.on_msg(None)
            closing.on_close(None)
            with contextlib.suppress(KeyError):  # somebody has emptied the list of comms
                closing.close()

    def _listen(self, made: Any) -> Any:
        made.on_msg(self._take)
        made.on_close(self._keep)
        return made

    def _take(self, message: dict[str, Any]) -> None:
        data = message["content"].get("data")
        if not isinstance(data, dict):
            return
        if isinstance(data.get("command"), str):
            self._obey(data["command"])
        elif "ask" in data:
            self._told = None
            self._asked()

    def _keep(self, message: dict[str, Any]) -> None:
        """A page without the extension closes what it does not know; others still use it."""
        with self._lock:
            if self._comm is None:
                return
            known = self._comm.comm_id
            self._comm = self._listen(
                comm.create_comm(target_name=TARGET, comm_id=known, primary=False)
            )
            comm.get_comm_manager().register_comm(self._comm)
