"""The commands of a live hunt: one table for the panel's buttons and for JupyterLab's commands.

It stands in `controls.json`, which the JupyterLab extension is built with.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import NamedTuple

IDLE, PAUSED, BUSY, AFTER_A_STEP = "idle", "paused", "busy", "idle after a step"


class Control(NamedTuple):
    """One command.

    Attributes:
        name: under which it is given.
        button: on the panel's button and the sidebar's.
        menu: in menus and the command palette.
        icon: name of a Font Awesome 4 icon.
        group: buttons of one number stand together.
        hint: what it does.
        when: in which states of the hunt it can be given: `"idle"`, `"paused"` inside a step,
            `"busy"`, `"idle after a step"` (idle, and at least one step was run). Elsewhere its
            button is greyed out; a click may come late, so the command itself refuses too.
    """

    name: str
    button: str
    menu: str
    icon: str
    group: int
    hint: str
    when: list[str]


CONTROLS = tuple(
    Control(**row)
    for row in json.loads(
        resources.files("nanhunt.panel").joinpath("controls.json").read_text(encoding="utf-8")
    )
)


def possible(busy: bool, paused: bool, steps_run: int) -> dict[str, bool]:
    """Which commands can be given now, by name.

    Args:
        busy: whether a step is running.
        paused: whether one stands inside.
        steps_run: steps that have been run.
    """
    state = PAUSED if paused else BUSY if busy else IDLE
    states = {state, AFTER_A_STEP} if state == IDLE and steps_run else {state}
    return {control.name: bool(states & set(control.when)) for control in CONTROLS}
