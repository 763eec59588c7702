"""Keeps what is needed of each step to judge in the end whether the training learns.

Nothing is read from the device while steps run. Per step there is one entry per update and per
backward; per-parameter work is done in the first and last step and in a handful between.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.program.source_lines import Stack
from nanhunt.core.program.target import Target, innermost, parameters_of
from nanhunt.core.tensors.stats import as_integers, is_lazy
from nanhunt.core.watch.step_facts import StepFacts
from nanhunt.torch_private import last_rates, local_part, loss_scale, stored_values, version

_SAMPLED = 4  # gradients per optimizer that are followed from update to backward
_KEPT = 512
MANY_PASSES = 4


@dataclasses.dataclass
class OptimizerLog:
    """Everything noted about one optimizer: numbers of all updates, and the first steps by number.

    Attributes:
        optimizer: the optimizer.
        updates: number of its updates.
        skipped: number of updates that a GradScaler left out.
        steps: number of steps with an update.
        first_steps: the first of these steps.
        shortest: fewest steps from one of them to the next; None before the second.
        rated: number of updates with a learning rate that is a plain number.
        moving: number of those in which some learning rate was not 0.
        rates: learning rates of the last update, of all groups (plain numbers only).
        highest: the highest learning rate of any update.
        rising: whether it is that of the last update, and the first one's was lower (a warm-up).
        said: number of updates for which a scheduler said a learning rate.
        scheduled: number of those that used it.
        known: number of updates of which it is known whether gradients were zeroed after them.
        zeroed: number of those after which they were, by anything but a backward adding to them.
        samples: (parameter, gradient, version) as last seen.
        touched: whether one of them was replaced or written since the last update.
        added: whether a backward pass may have added to them since.
    """

    optimizer: Optimizer
    updates: int = 0
    skipped: int = 0
    steps: int = 0
    first_steps: list[int] = dataclasses.field(default_factory=list)
    shortest: int | None = None
    rated: int = 0
    moving: int = 0
    rates: tuple[float, ...] = ()
    highest: float = 0.0
    rising: bool = False
    said: int = 0
    scheduled: int = 0
    known: int = 0
    zeroed: int = 0
    samples: list[tuple[Tensor, Tensor, int]] = dataclasses.field(default_factory=list)
    touched: bool = False
    added: bool = False
    _last_step: int = -1
    _first_rate: float = 0.0

    def note(self, step: int, rates: tuple[float, ...], scheduled: bool | None) -> None:
        """Notes an update.

        Args:
            step: the step it happened in.
            rates: learning rates of its groups (plain numbers only).
            scheduled: whether some scheduler of this optimizer says the same rates; None
                without one.
        """
        if self.updates and self.samples:
            # What backward did not make is written by hand, and so no sum over steps either.
            replaced = any(parameter.grad is not grad for parameter, grad, _ in self.samples)
            self.known += 1
            self.zeroed += self.touched or replaced or not self.added
        self.touched = self.added = False
        if not self.updates or step != self._last_step:
            if self.updates:
                gap = step - self._last_step
                self.shortest = gap if self.shortest is None else min(self.shortest, gap)
            if self.steps < _KEPT:
                self.first_steps.append(step)
            self.steps += 1
        self.updates += 1
        self._last_step, self.rates = step, rates
        top = max(rates, default=0.0)
        self._first_rate = top if self.updates == 1 else self._first_rate
        self.highest = max(self.highest, top)
        self.rising = self.highest == top > self._first_rate
        self.rated += bool(rates)
        self.moving += any(rates)
        self.said += scheduled is not None
        self.scheduled += scheduled is True

    def follow(self) -> None:
        """Remembers some gradients and the versions they have now."""
        dense = (
            (p, p.grad)
            for p in parameters_of(self.optimizer)
            if p.grad is not None and not p.grad.is_sparse
        )
        self.samples = [(p, g, version(g)) for p, g in itertools.islice(dense, _SAMPLED)]


class LearningLog:
    """What the rules about learning need, collected step by step while a hunt runs.

    Args:
        target: the model.
        optimizers: a live list.
        schedulers: what the step function can reach.

    Attributes:
        steps: calls of the step function.
        backwards: backward passes per step.
        logs: per optimizer, by identity.
        losses: the losses of the last steps, as they were returned or sent backward.
        first_loss: that of the first step.
        ratios: per step, of the first, the returned loss divided by the one sent backward.
        scales: (times that gradients were used or thrown away so far, loss scale) at each of the
            first backward passes.
        measured: steps in which every gradient was looked at.
        largest: per parameter, its largest gradient in those; missing if it never had one.
        clipped_scaled: where gradients were clipped while still multiplied by the loss scale.
        scaled_twice: steps in which a loss was scaled that had been scaled already.
        zeroed_in_vain: (times gradients were zeroed, backward passes) of the last steps that
            zeroed them far more often than backward ran.
        forwards: how often the model was called in the first step, if that was observed.
        ran: modules that ran in the first step, or None when that is not known.
    """

    def __init__(
        self, target: Target, optimizers: list[Optimizer], schedulers: Sequence[Any]
    ) -> None:
        self.target = target
        self.optimizers = optimizers
        self.schedulers = list(schedulers)
        self.steps = 0
        self.backwards: list[int] = []
        self.logs: dict[int, OptimizerLog] = {}
        self.losses: deque[Tensor] = deque(maxlen=_KEPT)
        self.first_loss: Tensor | None = None
        self.ratios: list[Tensor] = []
        self.scales: list[tuple[int, Tensor]] = []
        self.measured: list[int] = []
        self.largest: dict[str, Tensor] = {}
        self.ran: set[str] | None = None
        self.clipped_scaled: Stack | None = None
        self.scaled_twice = 0
        self.zeroed_in_vain: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        self.forwards = 0
        self._thrown_away = 0
        self._waiting = False
        self._zeroed: Counter[int] = Counter()
        self._first = {name: checksum(p) for name, p in target.parameters.items()}
        self._epochs = [getattr(s, "last_epoch", 0) for s in self.schedulers]

    # -- while the steps run ----------------------------------------------------------------------

    def before_backward(self, scalers: Sequence[GradScaler]) -> None:
        """Sees whether the sampled gradients are still those of the last update."""
        scale = loss_scale(scalers[0]) if len(scalers) == 1 else None
        if scale is not None and len(self.scales) < _KEPT:
            attempts = sum(log.updates + log.skipped for log in self.logs.values())
            attempts += self._thrown_away
            self.scales.append((attempts, scale.clone()))
        for log in self.logs.values():
            untouched = all(
                parameter.grad is grad and version(grad) == known
                for parameter, grad, known in log.samples
            )
            log.touched |= not untouched

    def after_backward(self) -> None:
        """Backward has added to the gradients; from here on they are followed again."""
        self._waiting = True
        for log in self.logs.values():
            log.follow()
            log.added = True

    def before_zeroing(self, owner: Any) -> None:
        """An optimizer or a module zeroes gradients; unless an update used them, they are lost."""
        self._zeroed[id(owner)] += 1
        self._thrown_away += self._waiting
        self._waiting = False

    def after_update(self, optimizer: Optimizer) -> None:
        """Notes an update."""
        self._waiting = False
        log = self._log(optimizer)
        rates = tuple(
            float(group["lr"])
            for group in optimizer.param_groups
            if isinstance(group.get("lr"), int | float)
        )
        log.note(self.steps, rates, self._scheduled(optimizer, rates))
        log.follow()
        if self._wants_gradients():
            self._measure(optimizer)

    def after_step(self, facts: StepFacts) -> None:
        """Notes the rest of a step."""
        zeroed = max(self._zeroed.values(), default=0)
        self._zeroed.clear()
        if zeroed >= MANY_PASSES and zeroed > 2 * facts.backwards > 0:
            self.zeroed_in_vain.append((zeroed, facts.backwards))
        self.backwards.append(facts.backwards)
        self.scaled_twice += facts.scaled_twice
        for _, optimizer in facts.skipped:
            self._log(optimizer).skipped += 1
        if facts.losses:
            last, first = facts.losses[-1].detach(), facts.losses[0].detach()
            if last.numel() == 1:
                self.losses.append(last.clone().reshape(()))
                if self.first_loss is None:
                    self.first_loss = self.losses[0]
                few = len(self.ratios) < _KEPT
                if few and len(facts.losses) == 2 and first.numel() == 1:
                    self.ratios.append((last.reshape(()) / first.reshape(())).clone())
        if self.steps not in self.measured and self._wants_gradients() and not facts.stepped:
            for optimizer in self.optimizers:
                self._measure(optimizer)
        self.steps += 1

    def _log(self, optimizer: Optimizer) -> OptimizerLog:
        return self.logs.setdefault(id(optimizer), OptimizerLog(optimizer))

    def _wants_gradients(self) -> bool:
        """In the first steps, then ever more seldom."""
        return self.steps < 8 or self.steps & (self.steps - 1) == 0

    @torch.no_grad()
    def _measure(self, optimizer: Optimizer) -> None:
        if not self.measured or self.measured[-1] != self.steps:
            self.measured.append(self.steps)
        for name, parameter in self.target.named_parameters(optimizer):
            grad = parameter.grad
            if grad is None:
                continue
            values = stored_values(grad) if grad.is_sparse else local_part(grad)
            if not values.numel():
                continue
            size = values.abs().max().to(torch.float32)
            before = self.largest.get(name)
            self.largest[name] = size if before is None else torch.maximum(before, size)

    def _scheduled(self, optimizer: Optimizer, rates: tuple[float, ...]) -> bool | None:
        mine = [s for s in self.schedulers if _driven_by(s) is optimizer]
        said = [last_rates(s) for s in mine]
        lists = [tuple(float(rate) for rate in rates_ if isinstance(rate, int | float))
                 for rates_ in said if rates_]  # fmt: skip
        return any(rates == says for says in lists) if lists else None

    # -- at the end -------------------------------------------------------------------------------

    @property
    def updates(self) -> int:
        """Number of updates of all optimizers."""
        return sum(log.updates for log in self.logs.values())

    @property
    def skips(self) -> int:
        """Number of updates that a GradScaler left out."""
        return sum(log.skipped for log in self.logs.values())

    def driven_elsewhere(self) -> list[tuple[Any, int]]:
        """Schedulers whose optimizer never updated, and how often they were stepped."""
        return [
            (scheduler, int(getattr(scheduler, "last_epoch", 0)) - epoch)
            for scheduler, epoch in zip(self.schedulers, self._epochs, strict=True)
            if id(_driven_by(scheduler)) not in self.logs
        ]

    def gradient_sizes(self) -> dict[str, float]:
        """Per parameter that had a gradient, its largest one."""
        return dict(zip(self.largest, _numbers(self.largest.values()), strict=True))

    def unchanged(self) -> set[str]:
        """Parameters whose bits are those of the beginning."""
        now = {n: checksum(p) for n, p in self.target.parameters.items() if n in self._first}
        same = [self._first[name] == now[name] for name in now]
        return {name for name, equal in zip(now, _numbers(same), strict=True) if equal}

    def loss_values(self) -> list[float]:
        """The first loss, and the losses of the last steps."""
        first = [self.first_loss] if self.first_loss is not None else []
        return _numbers([*first, *self.losses])

    def loss_ratios(self) -> list[float]:
        """The returned losses divided by those sent backward."""
        return _numbers(self.ratios)

    def scale_values(self) -> dict[int, set[float]]:
        """The loss scales at the backward passes before each update."""
        found: dict[int, set[float]] = defaultdict(set)
        values = _numbers([scale for _, scale in self.scales])
        for (window, _), value in zip(self.scales, values, strict=True):
            found[window].add(value)
        return found


def _driven_by(scheduler: Any) -> Optimizer | None:
    """The optimizer whose rates a scheduler sets."""
    optimizer = getattr(scheduler, "optimizer", None)
    return innermost(optimizer) if isinstance(optimizer, Optimizer) else None


@torch.no_grad()
def checksum(tensor: Tensor) -> Tensor:
    """The sum of a tensor's bits as integers, not yet read; different bits rarely agree."""
    tensor = local_part(tensor)
    if is_lazy(tensor) or tensor.is_meta or tensor.layout != torch.strided:
        return torch.zeros((), dtype=torch.int64)
    return as_integers(tensor.detach().contiguous()).sum(dtype=torch.int64)


def _numbers(tensors: Iterable[Tensor]) -> list[float]:
    listed = [local_part(tensor) for tensor in tensors]
    if not listed:
        return []
    home = listed[0].device
    return [float(v) for v in torch.stack([t.to(home, torch.float64) for t in listed]).tolist()]
