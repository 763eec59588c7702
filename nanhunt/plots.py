"""`hunt.plot`: what was measured, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from nanhunt.core.stepping.gauges import ACTIVATION, BATCH_NORM, GRADIENT, Gauges, StepGauges
from nanhunt.core.tensors.binning import histogram
from nanhunt.errors import UsageError
from nanhunt.records.histogram import Histogram
from nanhunt.render import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = (ACTIVATION, GRADIENT)


class Plots:
    """Figures of the steps that ran with `hunt.statistics = True` or were replayed.

    Every method returns a `matplotlib.figure.Figure`, to be shown, styled or saved.

    Args:
        gauges: what was measured.
        modules: the live modules by name.
        ink: colour of text and axes; None for matplotlib's style in force.
    """

    def __init__(
        self, gauges: Gauges, modules: Mapping[str, torch.nn.Module], ink: str | None = None
    ) -> None:
        self._gauges = gauges
        self._modules = modules
        self._ink = ink

    def activations(self, path: str = "") -> Figure:
        """The output of a module in the last measured step; an empty path is the root."""
        return self._one(ACTIVATION, path)

    def gradients(self, path: str = "") -> Figure:
        """The gradient of a module's output in the last measured step."""
        return self._one(GRADIENT, path)

    def weights(self, path: str = "") -> Figure:
        """The parameters of a module and of those inside it, as they are now."""
        parameters = list(self._module(path).parameters())
        counted = [found for found in map(histogram, parameters) if found.numel]
        if not counted:
            raise UsageError(f"{_named(path)} has no parameters whose values can be read")
        total = counted[0]
        for more in counted[1:]:
            total = total + more
        return figures.activity(total, f"parameters of {_named(path)}", self._ink)

    def batch_norm(self, path: str) -> Figure:
        """Running mean and variance of a BatchNorm layer beside those of the last batch."""
        step = self._last()
        four = {kind: step.get(kind, path) for kind in BATCH_NORM}
        found = {kind: counted for kind, counted in four.items() if counted is not None}
        if not found:
            raise UsageError(f"{_named(path)} is no BatchNorm layer that ran in step {step.step}")
        return figures.batch_norm(found, f"BatchNorm {path}, step {step.step}", self._ink)

    def history(self, path: str = "", of: str = ACTIVATION) -> Figure:
        """A module's activation or gradient over the last measured steps, as a heat map."""
        self._last()
        self._known(of, path)
        steps = [step.step for step in self._gauges.steps]
        rows = [step.get(of, path) for step in self._gauges.steps]
        return figures.over_time(
            steps, rows, f"{of} of {_named(path)}: % of the numbers", self._ink
        )

    def timeline(self, of: str = ACTIVATION) -> Figure:
        """The largest magnitude in every module over the last measured steps."""
        last = self._last()
        if of not in _KINDS:
            raise UsageError(f"of must be one of {', '.join(_KINDS)}, not {of!r}")
        steps = [step.step for step in self._gauges.steps]
        rows = {
            path or "the model": [step.get(of, path) for step in self._gauges.steps]
            for path in last.histograms.get(of, {})
        }
        return figures.timeline(steps, rows, f"largest {of} of every module, log2", self._ink)

    def _one(self, kind: str, path: str) -> Figure:
        step = self._last()
        found = self._known(kind, path)
        title = f"{kind} of {_named(path)}, step {step.step}"
        return figures.activity(found, title, self._ink)

    def _known(self, kind: str, path: str) -> Histogram:
        if kind not in _KINDS:
            raise UsageError(f"of must be one of {', '.join(_KINDS)}, not {kind!r}")
        self._module(path)
        found = self._last().get(kind, path)
        if found is None:
            raise UsageError(f"no {kind} of {_named(path)} was seen in step {self._last().step}")
        return found

    def _last(self) -> StepGauges:
        last = self._gauges.last
        if last is None:
            raise UsageError(
                "nothing has been measured yet: set hunt.statistics = True and run a step, or "
                "call hunt.replay()"
            )
        return last

    def _module(self, path: str) -> torch.nn.Module:
        if path not in self._modules:
            raise UsageError(f"no module is called {path!r}")
        return self._modules[path]


def _named(path: str) -> str:
    return path or "the model"
