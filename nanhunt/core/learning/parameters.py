"""Rules about parameters: without gradient, with a gradient of 0, or standing still."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nanhunt.core.learning.log import LearningLog, OptimizerLog
from nanhunt.core.learning.telling import ENOUGH_UPDATES, counted, finding
from nanhunt.core.program.target import parameters_of
from nanhunt.core.tensors.dtypes import HALVES
from nanhunt.records.report import Finding


def loss_detached(log: LearningLog) -> Finding | None:
    """Backward runs, and reaches no trainable parameter of the model."""
    trainable = [n for n, p in log.target.parameters.items() if p.requires_grad]
    if log.largest or len(log.measured) < ENOUGH_UPDATES or not any(log.backwards) or not trainable:
        return None
    if any(p.grad is not None for p in log.target.parameters.values()):
        return None
    return finding(
        log,
        "loss_detached",
        f"{counted(sum(log.backwards), 'backward pass')} reached none "
        f"of the {len(trainable):,} trainable parameters: the loss is detached from the model.",
        parameters=trainable,
    )


def parameters_without_gradient(log: LearningLog) -> Finding | None:
    """A module runs, its parameters are in an optimizer, and no gradient ever reaches them."""
    if len(log.measured) < ENOUGH_UPDATES or not log.largest or log.ran is None:
        return None
    owned = {id(p) for o in log.optimizers for p in parameters_of(o)}
    reached = {name.rpartition(".")[0] for name in log.largest}
    missing = [
        name
        for name, parameter in log.target.parameters.items()
        if parameter.requires_grad
        and id(parameter) in owned
        and name not in log.largest
        and parameter.grad is None
        and name.rpartition(".")[0] in log.ran - reached
    ]
    if not missing:
        return None
    expected = sum(p.requires_grad for p in log.target.parameters.values())
    return finding(
        log,
        "parameters_without_gradient",
        f"{counted(len(missing), 'trainable parameter')} never got a gradient although the "
        "module ran: its result is detached, or no loss depends on it.",
        parameters=missing,
        severity="critical" if 2 * len(missing) >= expected else "warning",
    )


def gradients_all_zero(log: LearningLog) -> Finding | None:
    """A gradient is exactly 0 in every update that was looked at: dead units."""
    if log.updates < 2 * ENOUGH_UPDATES or len(log.measured) < ENOUGH_UPDATES:
        return None
    sizes = log.gradient_sizes()
    alive = {name.rpartition(".")[0] for name, size in sizes.items() if size}
    # A single bias may well have none (the mean of two opposite terms): whole modules count.
    dead = [name for name in sizes if name.rpartition(".")[0] not in alive]
    if not dead:
        return None
    whole = len(dead) == len(log.largest)
    return finding(
        log,
        "gradients_all_zero",
        f"The gradient of {counted(len(dead), 'parameter')} was exactly 0 in all "
        f"{len(log.measured):,} steps looked at: nothing the loss sees depends on "
        f"{'them' if len(dead) > 1 else 'it'} (dead units, a saturated or constant output).",
        parameters=dead,
        severity="critical" if whole or 2 * len(dead) >= len(log.largest) else "warning",
    )


def parameters_in_no_optimizer(log: LearningLog) -> Finding | None:
    """Parameters beside frozen ones train in no optimizer, which holds the frozen ones.

    So it is where adapters came into the model after the optimizer was made. A part that is
    left out on purpose has no frozen layer of the optimizer's right beside it.
    """
    if log.updates < ENOUGH_UPDATES:
        return None
    owned = {id(p) for o in log.optimizers for p in parameters_of(o)}
    parameters = log.target.parameters
    frozen = [n for n, p in parameters.items() if id(p) in owned and not p.requires_grad]
    still = log.unchanged() if frozen else set()
    outside = [
        name
        for name, p in parameters.items()
        if name in still and p.requires_grad and p.grad is not None and id(p) not in owned
        if any(_beside(name, other) for other in frozen)
    ]
    if not outside:
        return None
    return finding(
        log,
        "parameters_in_no_optimizer",
        f"{counted(len(outside), 'trainable parameter')} had gradients and did not change in "
        f"{log.updates:,} updates: no optimizer holds them. One holds {len(frozen):,} frozen "
        "parameters beside them: it was made before these came into the model.",
        parameters=outside,
    )


def _beside(name: str, other: str) -> bool:
    """Whether two parameters stand in one layer, such as `q.down` and `q.base.weight`."""
    first, second = name.split("."), other.split(".")
    common = 0
    while common < min(len(first), len(second)) and first[common] == second[common]:
        common += 1
    return common > 0 and len(second) - common <= 2


def updates_lost_in_rounding(log: LearningLog) -> Finding | None:
    """Every update of a parameter is below half the distance to the next number of its dtype.

    Source: round to nearest; `torch.finfo(dtype).eps` is the distance from 1 to the next number.
    """
    lost = _lost_in_rounding(log)
    if not lost:
        return None
    names = list(lost)
    size, spacing = lost[names[0]]
    dtype = str(log.target.parameters[names[0]].dtype).removeprefix("torch.")
    trainable = sum(p.requires_grad for p in log.target.parameters.values())
    alone = set(names) & set(_standing_still(log, log.unchanged()))
    return finding(
        log,
        "updates_lost_in_rounding",
        f"{counted(len(names), 'parameter')} had gradients in {log.updates:,} updates and did not "
        f"change by a bit: an update of {names[0]} is at most {size:.3g}, and the next number of "
        f"{dtype} is {spacing:.3g} away. Keep a float32 copy of the weights.",
        parameters=names,
        severity="critical" if alone or 2 * len(names) >= trainable else "warning",
    )


@torch.no_grad()
def _lost_in_rounding(log: LearningLog) -> dict[str, tuple[float, float]]:
    """Parameters that stand still for their dtype: the largest update and the distance."""
    if log.updates < ENOUGH_UPDATES or not _in_half(log):
        return {}
    still, sizes = log.unchanged(), log.gradient_sizes()
    lost = {}
    for entry in log.logs.values():
        if entry.rising or not entry.highest:
            continue
        for name, parameter in log.target.named_parameters(entry.optimizer):
            if name not in still or not sizes.get(name) or parameter.dtype not in HALVES:
                continue
            smallest = float(parameter.abs().min()) if parameter.numel() else 0.0
            spacing = smallest * torch.finfo(parameter.dtype).eps / 2  # that below a power of 2
            update = _largest_update(entry, parameter, sizes[name])
            if update is not None and update < spacing / 2:
                lost[name] = (update, spacing)
    return lost


def _waiting_for_warm_up(log: LearningLog) -> set[str]:
    """Half-precision parameters whose learning rate is still rising: they may move yet."""
    return {
        name
        for entry in log.logs.values()
        if entry.rising
        for name, parameter in log.target.named_parameters(entry.optimizer)
        if parameter.dtype in HALVES
    }


_MARGIN = 4.0  # gradients between those that were measured may be larger


def _in_half(log: LearningLog) -> bool:
    return any(p.dtype in HALVES for p in log.target.parameters.values())


def _largest_update(entry: OptimizerLog, parameter: Tensor, gradient: float) -> float | None:
    """A bound for one update of an element; None for optimizers whose formula is not known."""
    defaults, rate = entry.optimizer.defaults, entry.highest
    decay = float(defaults.get("weight_decay", 0.0)) * float(parameter.abs().max())
    if type(entry.optimizer) in (torch.optim.Adam, torch.optim.AdamW):
        # Kingma and Ba, "Adam" (2015), section 2.1: |update| <= rate (1 - b1) / sqrt(1 - b2).
        b1, b2 = (float(b) for b in defaults["betas"])
        return rate * (max(1.0, (1 - b1) / math.sqrt(max(1 - b2, 1e-12))) + decay)
    if type(entry.optimizer) is torch.optim.SGD:
        kept = 1 - float(defaults.get("momentum", 0.0))
        return rate * (_MARGIN * gradient + decay) / max(kept, 1e-3)
    return None


def _standing_still(log: LearningLog, still: set[str]) -> set[str]:
    """Of parameters that did not change those of modules in which none has.

    A bias before a normalisation may stand still (its gradient is rounding): modules count.
    """
    moving = {name.rpartition(".")[0] for name in log.target.parameters if name not in still}
    return {name for name in still if name.rpartition(".")[0] not in moving}


def parameters_never_change(log: LearningLog) -> Finding | None:
    """Parameters with gradients are the same, to the bit, after many updates.

    The optimizer holds other tensors (it was built before they were replaced), or a group's
    learning rate is too small to change a float.
    """
    if log.updates < ENOUGH_UPDATES:
        return None
    sizes = log.gradient_sizes()
    still = log.unchanged()
    stepped = [entry.optimizer for entry in log.logs.values()]
    owned = {id(p) for o in stepped for p in parameters_of(o)}
    model = {id(p) for p in log.target.parameters.values()}
    stale = any(id(p) not in model for o in stepped for p in parameters_of(o))
    still = _standing_still(log, still) - _lost_in_rounding(log).keys()
    still -= _waiting_for_warm_up(log)
    inside = [n for n in still if sizes.get(n) and id(log.target.parameters[n]) in owned]
    outside = [
        name
        for name in still
        if (p := log.target.parameters[name]).requires_grad
        and p.grad is not None
        and id(p) not in owned
        and p.dtype not in HALVES  # the others may be copies in float32, whose steps are smaller
    ]
    if inside:
        return finding(
            log,
            "parameters_never_change",
            f"{counted(len(inside), 'parameter')} had gradients in {log.updates:,} updates and "
            "did not change by a bit: the learning rate is 0 or too small for them.",
            parameters=sorted(inside),
        )
    if outside and stale:
        return finding(
            log,
            "parameters_never_change",
            f"{counted(len(outside), 'parameter')} had gradients and never changed: the "
            "optimizer holds other tensors, it was built before these took their place.",
            parameters=sorted(outside),
        )
    return None
