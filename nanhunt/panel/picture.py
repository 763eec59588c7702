"""The picture of the chosen module, for the panel's page."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

from nanhunt.core.stepping.events import Here
from nanhunt.errors import UsageError
from nanhunt.interactive import Hunt
from nanhunt.panel.status import live_histogram
from nanhunt.plots import Plots
from nanhunt.render import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 60_000  # characters of one message
_RESOLUTIONS = (80, 60, 40)  # dots per inch, the sharpest first


class Picture:
    """Draws what is asked for, and says why where it cannot.

    Attributes:
        path: the chosen module.
    """

    def __init__(self, hunt: Hunt) -> None:
        self._hunt = hunt
        self._drawn: tuple[Any, str] = (None, "")
        self.path = ""

    def html(self, kind: str, here: Here | None) -> str:
        """A drawing, or one sentence."""
        wanted = (kind, self.path, here, self._hunt.gauges.last, self._hunt.position)
        if self._drawn[0] != wanted:
            self._drawn = (wanted, self._draw(kind, here))
        return self._drawn[1]

    def _draw(self, kind: str, here: Here | None) -> str:
        try:
            figure, label = self._figure(kind, here)
        except UsageError as error:
            return f'<p class="nh-notice">{escape(str(error))}</p>'
        text = figures.svg(figure, label)
        return text if len(text) < _MOST else _as_image(figure, label)

    def _figure(self, kind: str, here: Here | None) -> tuple[Figure, str]:
        live = live_histogram(here)
        if live is not None and live[1] == self.path and (kind, live[0]) in _LIVE:
            title = f"{live[0]} of {self.path or 'the model'}, now"
            return figures.activity(live[2], title, figures.PAGE_INK), title
        plots = Plots(self._hunt.gauges, self._hunt.module_tree(), figures.PAGE_INK)
        path = self.path
        draw = {
            "activation": lambda: plots.activations(path),
            "gradient": lambda: plots.gradients(path),
            "weights": lambda: plots.weights(path),
            "batch_norm": lambda: plots.batch_norm(path),
            "history": lambda: plots.history(path),
            "gradient_history": lambda: plots.history(path, of="gradient"),
            "timeline": plots.timeline,
        }
        of = "all modules" if kind == "timeline" else path or "the model"
        return draw[kind](), f"{kind.replace('_', ' ')} of {of}"


_LIVE = {("activation", "activation"), ("activation", "input"), ("gradient", "gradient")}


def _as_image(figure: Figure, label: str) -> str:
    """A picture too rich for vectors, with text that is readable on light and dark."""
    for dpi in _RESOLUTIONS:
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=dpi, facecolor="white", transparent=False)
        data = base64.b64encode(out.getvalue()).decode()
        source = f'src="data:image/png;base64,{data}"'
        if len(source) < _MOST:
            return f'<img alt="{escape(label)}" style="max-width:100%" {source}>'
    return '<p class="nh-notice">This picture is too rich for the panel; hunt.plot draws it.</p>'
