"""Remedies that change state instead of a call: statistics, optimizer settings, scale, batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from nanhunt.core.causes.scene import Scene
from nanhunt.core.program.target import Target, parameters_of
from nanhunt.core.tensors.stats import is_bad
from nanhunt.core.trials.remedy import BATCH, ONE_CALL, STATE, UPDATES, Remedy, Scope
from nanhunt.core.trials.snippets import code
from nanhunt.core.trials.widen import module_expression
from nanhunt.torch_private import set_loss_scale

_RATES = (0.1, 0.01, 0.001)


def reset_statistics(scene: Scene, target: Target) -> Remedy | None:
    """The poisoned statistics of all normalisations begin anew."""
    name = scene.outside.name if scene.outside is not None else scene.finding.tensor
    path = name.rpartition(".")[0] if name else scene.finding.module
    found = {n: m for n, m in target.named.items() if n == path or _poisoned(m)}
    candidates = {n: getattr(m, "reset_running_stats", None) for n, m in found.items()}
    resets: dict[str, Callable[[], None]] = {n: r for n, r in candidates.items() if callable(r)}
    if path not in resets:
        return None
    if len(resets) == 1:
        title = f"the statistics of {path} reset to mean 0, variance 1"
    else:
        title = f"the statistics of {len(resets)} modules reset to mean 0, variance 1"
    edit = code([f"{module_expression(target, name)}.reset_running_stats()" for name in resets])

    def enter(_: Scope) -> None:
        for reset in resets.values():
            reset()

    return Remedy(title, STATE, enter, lambda _: edit)


def _poisoned(module: nn.Module) -> bool:
    """Whether a module keeps running statistics that are not finite."""
    statistics = (getattr(module, name, None) for name in ("running_mean", "running_var"))
    return any(isinstance(kept, Tensor) and is_bad(kept) for kept in statistics)


def forget_optimizer_state(scene: Scene, target: Target) -> Remedy | None:
    """The optimizer's averages begin anew."""
    if not scene.optimizers:
        return None

    def enter(_: Scope) -> None:
        for optimizer in scene.optimizers:
            optimizer.state.clear()

    edit = code(["optimizer.state.clear()  # once, before the training goes on"])
    return Remedy("the optimizer's state cleared", STATE, enter, lambda _: edit)


def zero_gradients(scene: Scene, target: Target) -> Remedy | None:
    """Gradients from before the step are thrown away."""

    def enter(_: Scope) -> None:
        for parameter in target.parameters.values():
            parameter.grad = None

    edit = code(["optimizer.zero_grad()  # before backward"])
    return Remedy("gradients zeroed before the step", STATE, enter, lambda _: edit)


def optimizer_epsilon(scene: Scene, target: Target) -> Remedy | None:
    """An epsilon that the parameters' dtype can hold."""
    groups = [g for o in scene.optimizers for g in o.param_groups if "eps" in g]
    if not groups:
        return None
    half = any(p.dtype == torch.float16 for g in groups for p in g["params"])
    value = 1e-4 if half else 1e-8

    def enter(_: Scope) -> None:
        for group in groups:
            group["eps"] = value

    edit = code(["for group in optimizer.param_groups:", f'    group["eps"] = {value:g}'])
    return Remedy(f"eps={value:g} in the optimizer", UPDATES - 1, enter, lambda _: edit)


def loss_scale_of_one(scene: Scene, target: Target) -> Remedy | None:
    """The loss scale set to 1."""
    if not scene.scalers:
        return None

    def enter(_: Scope) -> None:
        for scaler in scene.scalers:
            set_loss_scale(scaler, 1.0)

    edit = code(['scaler.load_state_dict({**scaler.state_dict(), "scale": 1.0})'])
    return Remedy("a loss scale of 1", STATE, enter, lambda _: edit)


def clipped_gradients(scene: Scene, target: Target) -> Remedy | None:
    """Gradients clipped to a norm of 1 before each update."""
    return _clipped(False)


def clipped_since_the_step_before(scene: Scene, target: Target) -> Remedy | None:
    """Gradients clipped to a norm of 1, from the step before on."""
    return _clipped(True)


def _clipped(from_previous: bool) -> Remedy:
    def clip(optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        torch.nn.utils.clip_grad_norm_(parameters_of(optimizer), 1.0)

    def enter(scope: Scope) -> None:
        scope.callback(register_optimizer_step_pre_hook(clip).remove)

    edit = code(["torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # before each update"])
    when = ", from the step before on" if from_previous else ""
    title = f"gradients clipped to a norm of 1{when}"
    return Remedy(title, UPDATES, enter, lambda _: edit, from_previous)


def through_the_scaler(scene: Scene, target: Target) -> Remedy | None:
    """Gradients divided by the loss scale before each update, as `scaler.step` does."""
    if not scene.scalers:
        return None

    def unscale(optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        scale = scene.scalers[0].get_scale()
        for parameter in parameters_of(optimizer):
            if parameter.grad is not None:
                parameter.grad.div_(scale)

    def enter(scope: Scope) -> None:
        scope.callback(register_optimizer_step_pre_hook(unscale).remove)

    edit = code(["scaler.step(optimizer)  # instead of optimizer.step()"])
    title = "scaler.step(optimizer), from the step before on"
    return Remedy(title, ONE_CALL, enter, lambda _: edit, from_previous=True)


def smaller_rates(scene: Scene, target: Target) -> list[Remedy]:
    """A smaller learning rate in this step."""
    return [_rate(scene, factor, False) for factor in _RATES]


def smaller_rates_since_the_step_before(scene: Scene, target: Target) -> list[Remedy]:
    """A smaller learning rate from the step before on."""
    return [_rate(scene, factor, True) for factor in _RATES]


def _rate(scene: Scene, factor: float, from_previous: bool) -> Remedy:
    def scale(optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        # Each time anew: a scheduler may set the rate between two updates.
        for group in optimizer.param_groups:
            if "lr" in group:
                before.append((group, group["lr"]))
                group["lr"] = group["lr"] * factor

    def unscale(_optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        while before:
            group, rate = before.pop()
            group["lr"] = rate

    before: list[tuple[dict[str, object], float]] = []

    def enter(scope: Scope) -> None:
        before.clear()
        scope.callback(register_optimizer_step_pre_hook(scale).remove)
        scope.callback(register_optimizer_step_post_hook(unscale).remove)

    edit = code(["for group in optimizer.param_groups:", f'    group["lr"] *= {factor:g}'])
    when = ", from the step before on" if from_previous else ""
    title = f"a learning rate {1 / factor:g} times smaller{when}"
    return Remedy(title, UPDATES, enter, lambda _: edit, from_previous)


def skipped_batch(other: Callable[[], AbstractContextManager[None]]) -> Remedy:
    """The step on the batch after the failing one."""
    edit = code(
        [
            "if not all(torch.isfinite(x).all() for x in batch):  # tensors of the batch",
            "    continue",
        ]
    )

    def enter(scope: Scope) -> None:
        scope.enter_context(other())

    return Remedy("the next batch instead of this one", BATCH, enter, lambda _: edit)
