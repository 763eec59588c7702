"""Preflight: one observed step, its facts, and everything put back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nanhunt.core.hunt import Hunt
from nanhunt.core.observe import Activity
from nanhunt.core.preflight_watch import Watch
from nanhunt.core.sentinel import StepFacts
from nanhunt.core.shield import uninterrupted
from nanhunt.core.stats import dtype_name, is_lazy
from nanhunt.core.target import parameters_of
from nanhunt.facts import NoGradient, ParameterCount, Preflight, Warned
from nanhunt.report import Finding, Source


def preflight(
    model: Any,
    step_fn: Callable[..., Any],
    *,
    optimizer: Any = None,
    scaler: Any = None,
    data: Iterable[Any] | None = None,
) -> Preflight:
    """Runs one step under observation, puts everything back, and says what was seen.

    Args:
        model, step_fn, optimizer, scaler, data: as in `hunt`.

    Raises:
        UsageError: the call cannot work as written; nothing has been changed.
        Exception: whatever the user's step raises; the step was undone.
    """
    options = {"optimizer": optimizer, "scaler": scaler, "data": data}
    observed = _Observed(model, step_fn, **options, trials=False, progress=False)
    with observed:
        observed.step()
        return observed.result


class _Observed(Hunt):
    """A hunt of a single step that gathers facts instead of failures."""

    result: Preflight

    def _step(self) -> Finding | None:
        activity = Activity()
        before = _gradients(self._target.parameters)
        received: set[str] = set()
        already_on = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        self._sentinel = self._make_sentinel(activity, None)
        self._sentinel.before_backward = None

        def look(_optimizer: object = None) -> None:
            now = _gradients(self._target.parameters)
            received.update(name for name, mark in now.items() if before.get(name) != mark)

        self._sentinel.after_backward = look
        self._sentinel.after_update = None
        with self._sentinel, Watch(self._target, activity) as watch:
            returned = self._call_step()
            facts = watch.quietly(lambda: self._sentinel.finish(returned))
        scales = tuple(float(s.get_scale()) for s in self._scalers if s.is_enabled())
        lost = self._without_gradient(watch, received) if facts.backwards else ()
        notes = ["autocast was already on before the step began"] if already_on else []
        if self._snapshot.missing:
            notes.append(f"{self._snapshot.missing}: the step was not undone")
        self.result = Preflight(
            self._target.title(),
            (
                *_birth_warnings(watch),
                *_lost_warnings(lost),
                *_thrown(watch),
                *self._optimizer_warnings(),
                *self._norm_warnings(),
                *_loss_warnings(facts),
            ),
            watch.census.facts(),
            watch.autocast(),
            tuple(watch.births),
            self._counts(),
            lost,
            facts.backwards,
            len(self._optimizers),
            len(facts.stepped),
            len(facts.skipped),
            scales,
            tuple(notes),
        )
        with uninterrupted():
            self.rewind()
        return None

    def _counts(self) -> tuple[ParameterCount, ...]:
        groups: dict[str, list[nn.Parameter]] = {"": []}
        for name, parameter in self._target.parameters.items():
            if not is_lazy(parameter):
                groups[""].append(parameter)
                groups.setdefault(name.split(".")[0], []).append(parameter)
        rows = []
        for name, members in groups.items():
            dtypes: Counter[str] = Counter()
            for parameter in members:
                dtypes[dtype_name(parameter.dtype)] += parameter.numel()
            trainable = sum(p.numel() for p in members if p.requires_grad)
            rows.append(ParameterCount(name, dtypes.total(), trainable, dict(dtypes)))
        return tuple(rows)

    def _without_gradient(self, watch: Watch, received: set[str]) -> tuple[NoGradient, ...]:
        groups: dict[tuple[str, Source | None], list[str]] = {}
        for name, parameter in self._target.parameters.items():
            if name in received:
                continue
            source = next((source for names, source in watch.cuts if name in names), None)
            if not parameter.requires_grad:
                key: tuple[str, Source | None] = ("frozen", None)
            elif name not in watch.read:
                key = ("unused", None)
            else:
                key = ("detached" if source else "unknown", source)
            groups.setdefault(key, []).append(name)
        return tuple(NoGradient(tuple(names), *key) for key, names in groups.items())

    def _optimizer_warnings(self) -> list[Warned]:
        if not self._optimizers:
            return []
        holders = Counter(id(p) for o in self._optimizers for p in {*parameters_of(o)})
        named = self._target.parameters.items()
        none = [n for n, p in named if p.requires_grad and not holders[id(p)]]
        two = [n for n, p in named if holders[id(p)] > 1]
        mine = {id(p) for _, p in named}
        gone = sum(id(p) not in mine for o in self._optimizers for p in parameters_of(o))
        warnings = []
        if none and gone:
            text = f"{_some(none)} in no optimizer, and the optimizers hold {gone} tensors that "
            text += "are not in the model: they may have been replaced since it was built"
            warnings.append(Warned("replaced", text))
        elif none:
            warnings.append(Warned("no_optimizer", f"{_some(none)} in no optimizer"))
        if two:
            warnings.append(Warned("two_optimizers", f"{_some(two)} in more than one optimizer"))
        return warnings

    def _norm_warnings(self) -> list[Warned]:
        warnings = []
        for prefix, root in self._target.roots.items():
            for path, module in root.named_modules(prefix=prefix):
                if not isinstance(module, _BatchNorm) or module.training == root.training:
                    continue
                own = list(module.parameters(recurse=False))
                if root.training and own and not any(p.requires_grad for p in own):
                    continue  # frozen with its weights: meant so
                modes = ("training", "eval") if module.training else ("eval", "training")
                text = f"{path} is in {modes[0]} mode while the model is in {modes[1]} mode"
                warnings.append(Warned("norm_mode", text))
        return warnings


def _gradients(parameters: dict[str, nn.Parameter]) -> dict[str, tuple[int, int]]:
    return {n: (id(p.grad), p.grad._version) for n, p in parameters.items() if p.grad is not None}


def _birth_warnings(watch: Watch) -> list[Warned]:
    return [
        Warned("complex_half", f"{birth.op} makes ComplexHalf in {birth.module!r}", birth.source)
        for birth in watch.births
    ]


def _lost_warnings(lost: tuple[NoGradient, ...]) -> list[Warned]:
    return [
        Warned(
            "no_gradient", f"{_some(list(group.names))} without gradient: {group.why}", group.source
        )
        for group in lost
        if group.why != "frozen"
    ]


def _thrown(watch: Watch) -> list[Warned]:
    return [
        Warned("thrown_away", f"the result of .{name}() is thrown away", source)
        for source, name in watch.thrown_away.items()
    ]


def _loss_warnings(facts: StepFacts) -> list[Warned]:
    loose = [loss for loss in facts.losses if not loss.requires_grad]
    if facts.backwards or not loose:
        return []
    return [
        Warned("no_graph", "the loss has no graph (requires_grad is False) and no backward ran")
    ]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"
