"""Rules about parameters: without gradient, with a gradient of 0, or standing still."""

from __future__ import annotations

from nanhunt.core.learning.log import LearningLog
from nanhunt.core.learning.telling import ENOUGH_UPDATES, counted, finding
from nanhunt.core.program.target import parameters_of
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
        f"{counted(sum(log.backwards), 'backward pass').replace('passs', 'passes')} reached none "
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
    # A bias before a normalisation may stand still (its gradient is rounding): modules count.
    moving = {name.rpartition(".")[0] for name in log.target.parameters if name not in still}
    still = {name for name in still if name.rpartition(".")[0] not in moving}
    inside = [n for n in still if sizes.get(n) and id(log.target.parameters[n]) in owned]
    outside = [
        name
        for name in still
        if (p := log.target.parameters[name]).requires_grad
        and p.grad is not None
        and id(p) not in owned
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
