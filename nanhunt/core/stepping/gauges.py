"""Histograms of every module's output and gradient, and of BatchNorm statistics, per step.

Counted on the device while the step runs, copied to the host once at its end.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nanhunt.core.tensors.binning import Counted, Scratch, count, read
from nanhunt.core.tensors.stats import plain_tensors
from nanhunt.records.histogram import Histogram
from nanhunt.torch_private import (
    BatchNorm,
    dispatch_modes_off,
    function_modes_off,
    saved_statistics,
    saved_tensors_hooks,
    version,
)

ACTIVATION, GRADIENT = "activation", "gradient"
BATCH_NORM = ("running_mean", "batch_mean", "running_var", "batch_var")
_MAX_STEPS = 64
_MAX_HISTOGRAMS = 20_000  # about 3 kB each
_NORMS = (BatchNorm,)


@dataclasses.dataclass(frozen=True, eq=False)
class StepGauges:
    """What one step was seen to hold.

    Attributes:
        step: 0-based.
        histograms: by kind (`"activation"`, `"gradient"`, the four of BatchNorm) and module;
            modules in the order in which they first returned.
        order: the modules that ran, in the order in which they began.
    """

    step: int
    histograms: Mapping[str, Mapping[str, Histogram]]
    order: tuple[str, ...] = ()

    def get(self, kind: str, path: str) -> Histogram | None:
        """One histogram, if there is one."""
        return self.histograms.get(kind, {}).get(path)

    def __len__(self) -> int:
        return sum(map(len, self.histograms.values()))


class Gauges:
    """Collects histograms while a step runs and keeps those of the last steps.

    Attributes:
        steps: the last steps' gauges, oldest first, at most 64 and 20,000 histograms.
        notes: what could not be measured, and why.
    """

    def __init__(self) -> None:
        self.steps: deque[StepGauges] = deque()
        self.notes: list[str] = []
        self._counted: list[tuple[str, str, Counted]] = []
        self._order: dict[str, None] = {}
        self._scratch: Scratch = {}
        self._recent: deque[tuple[weakref.ref[Tensor], int, Counted | None]] = deque(maxlen=8)

    @property
    def last(self) -> StepGauges | None:
        """The step measured last."""
        return self.steps[-1] if self.steps else None

    def clear(self) -> None:
        """Forgets everything."""
        self.steps.clear()
        self.notes.clear()
        self._forget_step()

    # -- while a step runs ----------------------------------------------------------------------

    def note_input(self, module: nn.Module, path: str, held: Any) -> None:
        """Before a module runs: of BatchNorm in training mode the batch's own statistics, unless
        the layer will save them for its backward pass where they can be had for nothing.
        """
        self._order.setdefault(path)
        if isinstance(module, _NORMS) and _uses_batch(module) and not _saves_plainly():
            given = next((t for t in plain_tensors(held) if t.is_floating_point()), None)
            if given is not None and given.dim() >= 2 and given.numel():
                self._safely(path, lambda: self._note_batch(path, given))

    def note_output(self, module: nn.Module, path: str, output: Any) -> None:
        """After a module has run."""
        for tensor in plain_tensors(output):
            self._safely(path, lambda tensor=tensor: self._note(ACTIVATION, path, tensor))  # type: ignore[misc]
        if isinstance(module, _NORMS):
            if _uses_batch(module) and _saves_plainly():
                self._safely(path, lambda: self._note_saved(module, path, output))
            for name in ("running_mean", "running_var"):
                buffer = getattr(module, name)
                if buffer is not None:
                    self._safely(path, lambda n=name, b=buffer: self._note(n, path, b))  # type: ignore[misc]

    def note_gradient(self, path: str, gradient: Tensor) -> None:
        """When the gradient of a module's output is known."""
        self._safely(path, lambda: self._note(GRADIENT, path, gradient))

    def finish(self, step: int) -> None:
        """Ends a step: everything is read at once."""
        try:
            records = read([counted for _, _, counted in self._counted])
        except RuntimeError as error:
            records = []
            self._say(f"statistics could not be read: {error}")
        found: dict[str, dict[str, Histogram]] = {}
        for (kind, path, _), record in zip(self._counted, records, strict=False):
            of_kind = found.setdefault(kind, {})
            of_kind[path] = of_kind[path] + record if path in of_kind else record
        order = tuple(self._order)
        self._forget_step()
        while self.steps and self.steps[-1].step >= step:  # done again, after a step back
            self.steps.pop()
        self.steps.append(StepGauges(step, found, order))
        while len(self.steps) > 1 and (
            len(self.steps) > _MAX_STEPS or sum(map(len, self.steps)) > _MAX_HISTOGRAMS
        ):
            self.steps.popleft()

    # -- inside ---------------------------------------------------------------------------------

    def _note(self, kind: str, path: str, tensor: Tensor) -> None:
        counted = self._count(tensor)
        if counted is not None:
            self._counted.append((kind, path, counted))

    def _count(self, tensor: Tensor) -> Counted | None:
        """Counts a tensor, or takes the counts of just now: a child's output is often its
        parent's as well.
        """
        times = version(tensor) if not tensor.is_inference() else -1
        for known, seen, counted in self._recent:
            if known() is tensor and seen == times != -1:
                return counted
        counted = count(tensor, scratch=self._scratch)
        self._recent.append((weakref.ref(tensor), times, counted))
        return counted

    @torch.no_grad()
    def _note_batch(self, path: str, given: Tensor) -> None:
        with function_modes_off(), dispatch_modes_off():
            values = given.detach()
            values = values if values.itemsize >= 4 else values.float()
            dims = [d for d in range(values.dim()) if d != 1]
            variance, mean = torch.var_mean(values, dims, correction=0)
        self._note("batch_mean", path, mean)
        self._note("batch_var", path, variance)

    @torch.no_grad()
    def _note_saved(self, module: Any, path: str, output: Tensor) -> None:
        """Takes the batch's mean and 1 / sqrt(variance + eps) from the node of the layer's op."""
        mean, inverse = saved_statistics(output.grad_fn)
        if mean is not None and inverse is not None and mean.numel():
            self._note("batch_mean", path, mean)
            self._note("batch_var", path, (inverse.pow(-2) - module.eps).clamp(min=0))

    def _safely(self, path: str, measure: Callable[[], None]) -> None:
        """What cannot be measured is said, and the step goes on."""
        try:
            measure()
        except (RuntimeError, NotImplementedError, TypeError) as error:
            told = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            self._say(f"{path or 'the model'} could not be measured: {told}")

    def _say(self, note: str) -> None:
        if note not in self.notes and len(self.notes) < 20:
            self.notes.append(note)

    def _forget_step(self) -> None:
        self._counted.clear()
        self._order.clear()
        self._recent.clear()
        self._scratch.clear()


def _uses_batch(module: Any) -> bool:
    return bool(module.training) or module.running_mean is None


def _saves_plainly() -> bool:
    """Whether what autograd saves now can be read without calling anybody's hook (activation
    checkpointing would compute the module again).
    """
    return torch.is_grad_enabled() and saved_tensors_hooks() is None
