"""The panel's widgets and their layout; what they do stands in `panel.py`."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import ipywidgets as widgets

from nanhunt.panel.controls import CONTROLS

KINDS = (
    ("Activation", "activation"),
    ("Gradient", "gradient"),
    ("Weights", "weights"),
    ("BatchNorm", "batch_norm"),
    ("Activation over time", "history"),
    ("Gradient over time", "gradient_history"),
    ("All modules over time", "timeline"),
)
NO_BREAKPOINTS = ("no breakpoints",)


class Face:
    """The panel's widgets, each made once.

    Attributes:
        buttons: by the names in `CONTROLS`.
        status, style, picture, log: HTML, written by the panel.
        modules: the list; `page` and `pages` move through it.
        box: all of it.
    """

    def __init__(self, steps: int, statistics: bool) -> None:
        self.mark = f"nanhunt-{uuid.uuid4().hex[:8]}"
        self.status = widgets.HTML()
        self.style = widgets.HTML(layout={"display": "flex", "height": "0", "margin": "0"})
        self.buttons = {
            each.name: widgets.Button(
                description=each.button,
                icon=each.icon,
                tooltip=each.hint,
                layout={"width": "auto"},
            )
            for each in CONTROLS
        }
        self.steps = widgets.BoundedIntText(
            steps, 1, 10_000_000, description="steps", tooltip="How many steps Run and Hunt make",
            style={"description_width": "auto"}, layout={"width": "110px"},
        )  # fmt: skip
        self.statistics = widgets.Checkbox(
            statistics, description="statistics", indent=False, layout={"width": "auto"},
            tooltip="Count every module's output and gradient into histograms, in every step",
        )  # fmt: skip
        self._make_list()
        self._make_breakpoints()
        self.kind = widgets.Dropdown(
            options=KINDS, description="show", style={"description_width": "auto"},
            layout={"width": "220px"},
        )  # fmt: skip
        self.picture = widgets.HTML(layout={"width": "100%", "min_height": "300px"})
        self.log = widgets.HTML(layout={"width": "100%"})
        self.box = self._laid_out()

    def _make_list(self) -> None:
        self.search = widgets.Text(
            placeholder="search modules", continuous_update=True, layout={"width": "170px"}
        )
        self.suspicious = widgets.Checkbox(
            False, description="only suspicious", indent=False, layout={"width": "auto"}
        )
        self.tree = widgets.Checkbox(
            False, description="as a tree", indent=False, layout={"width": "auto"}
        )
        self.modules = widgets.Select(rows=15, layout={"width": "100%", "height": "290px"})
        self.modules.add_class("nanhunt-modules")
        self.pages = widgets.HTML()
        self.earlier, self.later = (
            widgets.Button(description=label, tooltip=told, layout={"width": "auto"})
            for label, told in (("Earlier", "Rows before"), ("Later", "Further rows"))
        )

    def _make_breakpoints(self) -> None:
        auto = {"description_width": "auto"}
        self.where = widgets.Text(
            description="break at", placeholder="name, class or pattern", style=auto,
            layout={"width": "230px"},
        )  # fmt: skip
        self.condition = widgets.Text(
            description="if", placeholder="nan, absmax > 1e4, underflow > 10%", style=auto,
            layout={"width": "270px"},
        )  # fmt: skip
        self.phase = widgets.Dropdown(
            options=("forward", "backward", "both"), layout={"width": "100px"}
        )
        self.add = widgets.Button(
            description="Add", icon="plus", tooltip="Set this breakpoint", layout={"width": "auto"}
        )
        self.points = widgets.Dropdown(options=NO_BREAKPOINTS, layout={"width": "200px"})
        self.remove = widgets.Button(
            description="Remove", tooltip="Remove the chosen breakpoint", disabled=True,
            layout={"width": "auto"},
        )  # fmt: skip

    def _laid_out(self) -> Any:
        flow = {"flex_flow": "row wrap", "align_items": "center"}
        groups = [
            widgets.HBox([self.buttons[each.name] for each in group], layout=flow)
            for _, group in itertools.groupby(CONTROLS, lambda each: each.group)
        ]
        toolbar = widgets.HBox([*groups, self.steps, self.statistics], layout=flow)
        finder = widgets.HBox(
            [self.search, self.suspicious, self.tree, self.earlier, self.pages, self.later],
            layout=flow,
        )
        left = widgets.VBox([finder, self.modules], layout={"flex": "1 1 480px", "min_width": "0"})
        right = widgets.VBox([self.kind, self.picture], layout={"flex": "1 1 480px"})
        middle = widgets.HBox([left, right], layout={"flex_flow": "row wrap", "width": "100%"})
        points = widgets.HBox(
            [self.where, self.condition, self.phase, self.add, self.points, self.remove],
            layout=flow,
        )
        box = widgets.VBox([self.style, self.status, toolbar, middle, points, self.log])
        box.add_class("nanhunt-panel")
        box.add_class(self.mark)
        return box
