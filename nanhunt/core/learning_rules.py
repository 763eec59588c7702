"""Rules about training that runs and does not learn: nothing is NaN, and nothing moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nanhunt.core.learning import LearningLog, OptimizerLog
from nanhunt.core.target import parameters_of
from nanhunt.report import Finding

ENOUGH_CALLS = 20  # calls without any update; accumulation over more is hardly ever meant
ENOUGH_UPDATES = 5
_NAMED = 6


def not_training(log: LearningLog) -> list[Finding]:
    """Every rule whose evidence holds at the end of a run that stayed finite."""
    found: list[Finding] = []
    for rule in RULES:
        finding = rule(log)
        if finding is not None:
            found.append(finding)
    if any(f.severity == "critical" and f.cause != "loss_never_changes" for f in found):
        # That the loss stands still is then a consequence.
        found = [f for f in found if f.cause != "loss_never_changes"]
    return found


def _finding(
    log: LearningLog,
    cause: str,
    explanation: str,
    evidence: Sequence[str] = (),
    parameters: Sequence[str] = (),
    severity: str = "critical",
) -> Finding:
    named = _listing(parameters)
    return Finding(
        severity=severity,
        kind="not_training",
        phase="loop",
        step=max(log.steps - 1, 0),
        tensor=parameters[0] if parameters else None,
        cause=cause,
        explanation=explanation,
        evidence=(*evidence, *((f"parameters: {named}",) if named else ())),
    )


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more if names else ""


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def optimizer_never_steps(log: LearningLog) -> Finding | None:
    """No update in the whole run. Source: an update is what changes parameters."""
    if log.updates or log.steps < ENOUGH_CALLS or not log.optimizers or not any(log.backwards):
        return None
    calls = f"The optimizer made 0 updates in {_counted(log.steps, 'call')} of step_fn"
    passes = _counted(sum(log.backwards), "backward pass")
    passes = passes.replace("passs", "passes")
    if log.skips:
        why = f"GradScaler skipped all {log.skips:,}: the gradients were never finite at its scale"
    else:
        why = "optimizer.step() was never called"
    return _finding(log, "optimizer_never_steps", f"{calls}: {why}.", (f"{passes} ran",))


def optimizer_seldom_steps(log: LearningLog) -> Finding | None:
    """Updates come irregularly and far more seldom than the shortest distance between two.

    Gradient accumulation updates at a fixed distance; a loop that leaves updates out does not.
    """
    if not log.updates or log.steps < ENOUGH_CALLS or len(log.logs) != 1:
        return None
    (only,) = log.logs.values()
    steps = sorted({update.step for update in only.updates})
    gaps = [b - a for a, b in zip([-1, *steps], steps, strict=False)]
    shortest = min(gaps[1:], default=gaps[0])
    expected = log.steps / shortest
    if len(steps) >= 0.5 * expected or expected < 4 or len(only.skipped) > len(steps):
        return _skipped_mostly(log, only)
    without_backward = sum(count == 0 for count in log.backwards)
    why = (
        f"{_counted(without_backward, 'call')} ran no backward pass: the loop's own check left "
        "them out"
        if without_backward > log.steps // 4
        else "the loop called optimizer.step() no more often"
    )
    return _finding(
        log,
        "optimizer_seldom_steps",
        f"The optimizer made {_counted(len(steps), 'update')} in {log.steps:,} calls of step_fn, "
        f"although two of them came only {_counted(shortest, 'call')} apart: {why}.",
        (f"updates in the steps {', '.join(map(str, steps[:12]))}",),
    )


def _skipped_mostly(log: LearningLog, only: OptimizerLog) -> Finding | None:
    if len(only.skipped) <= max(len(only.updates), ENOUGH_CALLS // 2):
        return None
    return _finding(
        log,
        "optimizer_seldom_steps",
        f"The optimizer made {_counted(len(only.updates), 'update')} in {log.steps:,} calls of "
        f"step_fn: GradScaler skipped {len(only.skipped):,} of them.",
    )


def learning_rate_zero(log: LearningLog) -> Finding | None:
    """Every update of an optimizer had a learning rate of 0."""
    for entry in log.logs.values():
        rates = [rate for update in entry.updates for rate in update.rates]
        if len(entry.updates) >= ENOUGH_UPDATES and rates and not any(rates):
            return _finding(
                log,
                "learning_rate_zero",
                f"All {len(entry.updates):,} updates were made with a learning rate of 0.",
                _owned_by(entry),
            )
    return None


def _owned_by(entry: OptimizerLog) -> tuple[str, ...]:
    count = len(parameters_of(entry.optimizer))
    return (f"{type(entry.optimizer).__name__} with {_counted(count, 'parameter')}",)


def learning_rate_not_the_schedulers(log: LearningLog) -> Finding | None:
    """The scheduler drives another optimizer, or its rate is overwritten before the update.

    Source: torch.optim.lr_scheduler: a scheduler writes `lr` of the optimizer it was given.
    """
    for scheduler, times in log.driven_elsewhere():
        if times < ENOUGH_UPDATES:
            continue
        return _finding(
            log,
            "learning_rate_not_the_schedulers",
            f"{type(scheduler).__name__} was stepped {times:,} times, but the optimizer it was "
            "built with never made an update: it drives another optimizer.",
        )
    for entry in log.logs.values():
        said = [update for update in entry.updates if update.scheduled is not None]
        wrong = [update for update in said if update.scheduled is False]
        if len(said) >= ENOUGH_UPDATES and len(wrong) == len(said):
            rate = wrong[-1].rates[0] if wrong[-1].rates else float("nan")
            return _finding(
                log,
                "learning_rate_not_the_schedulers",
                f"None of {len(said):,} updates used the learning rate of its scheduler: "
                f"something else sets it (last used: {rate:g}).",
                _owned_by(entry),
            )
    return None


def gradients_never_zeroed(log: LearningLog) -> Finding | None:
    """Gradients of all former steps add up: nobody zeroes them between update and backward."""
    for entry in log.logs.values():
        known = [update for update in entry.updates if update.zeroed is not None]
        if len(known) >= ENOUGH_UPDATES and not any(update.zeroed for update in known):
            return _finding(
                log,
                "gradients_never_zeroed",
                f"After none of {len(known):,} updates were the gradients zeroed before the next "
                "backward: they are sums over all steps so far.",
                _owned_by(entry),
            )
    return None


def loss_detached(log: LearningLog) -> Finding | None:
    """Backward runs, and reaches no trainable parameter of the model."""
    trainable = [n for n, p in log.target.parameters.items() if p.requires_grad]
    if log.largest or len(log.measured) < ENOUGH_UPDATES or not any(log.backwards) or not trainable:
        return None
    if any(p.grad is not None for p in log.target.parameters.values()):
        return None
    return _finding(
        log,
        "loss_detached",
        f"{_counted(sum(log.backwards), 'backward pass').replace('passs', 'passes')} reached none "
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
    return _finding(
        log,
        "parameters_without_gradient",
        f"{_counted(len(missing), 'trainable parameter')} never got a gradient although the "
        "module ran: its result is detached, or no loss depends on it.",
        parameters=missing,
        severity="critical" if 2 * len(missing) >= expected else "warning",
    )


def gradients_all_zero(log: LearningLog) -> Finding | None:
    """A gradient is exactly 0 in every update that was looked at: dead units."""
    if log.updates < ENOUGH_UPDATES or len(log.measured) < ENOUGH_UPDATES:
        return None
    sizes = log.gradient_sizes()
    alive = {name.rpartition(".")[0] for name, size in sizes.items() if size}
    # A single bias may well have none (the mean of two opposite terms): whole modules count.
    dead = [name for name in sizes if name.rpartition(".")[0] not in alive]
    if not dead:
        return None
    whole = len(dead) == len(log.largest)
    return _finding(
        log,
        "gradients_all_zero",
        f"The gradient of {_counted(len(dead), 'parameter')} was exactly 0 in all "
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
    if inside and learning_rate_zero(log) is None:
        return _finding(
            log,
            "parameters_never_change",
            f"{_counted(len(inside), 'parameter')} had gradients in {log.updates:,} updates and "
            "did not change by a bit: the learning rate is 0 or too small for them.",
            parameters=sorted(inside),
        )
    if outside and stale:
        return _finding(
            log,
            "parameters_never_change",
            f"{_counted(len(outside), 'parameter')} had gradients and never changed: the "
            "optimizer holds other tensors, it was built before these took their place.",
            parameters=sorted(outside),
        )
    return None


def accumulation_wrong_divisor(log: LearningLog) -> Finding | None:
    """The loss is divided for another number of micro-batches than an update adds up.

    Source: torch.amp examples, gradient accumulation: `loss = loss / iters_to_accumulate`.
    """
    ratios = log.loss_ratios()
    if len(log.logs) != 1 or len(ratios) < ENOUGH_UPDATES or len(ratios) != log.steps:
        return None
    divisor = round(ratios[0])
    if divisor < 2 or any(abs(ratio - divisor) > 1e-3 * divisor for ratio in ratios):
        return None
    (entry,) = log.logs.values()
    steps = [update.step for update in entry.updates]
    gaps = {b - a for a, b in zip([-1, *steps], steps, strict=False)}
    if len(gaps) != 1 or len(steps) < 3 or any(count != 1 for count in log.backwards):
        return None
    (every,) = gaps
    if every == divisor:
        return None
    return _finding(
        log,
        "accumulation_wrong_divisor",
        f"The loss is divided by {divisor} before backward, but an update comes after every "
        f"{'call' if every == 1 else f'{every} calls'}: gradients are {every / divisor:.3g} times "
        "those of the mean loss.",
    )


def scale_changed_during_accumulation(log: LearningLog) -> Finding | None:
    """The loss scale changes between the micro-batches of one update.

    Source: torch.amp examples, gradient accumulation: the scale must stay constant meanwhile.
    """
    mixed = [values for values in log.scale_values().values() if len(values) > 1]
    if not mixed or log.updates < 2:
        return None
    return _finding(
        log,
        "scale_changed_during_accumulation",
        f"In {len(mixed):,} of {log.updates:,} updates the loss scale changed between the "
        "micro-batches that were added up: their gradients have different scales.",
        (f"scales within one update: {', '.join(f'{v:g}' for v in sorted(mixed[0]))}",),
    )


def loss_never_changes(log: LearningLog) -> Finding | None:
    """The loss is the same, to the bit, over many updates."""
    values = log.loss_values()
    last = values[-2 * ENOUGH_UPDATES :]
    if log.updates < 2 * ENOUGH_UPDATES or len(last) < 2 * ENOUGH_UPDATES:
        return None
    if len(set(last)) != 1 or last[0] == 0:
        return None
    return _finding(
        log,
        "loss_never_changes",
        f"The loss was {last[0]:.6g}, the same to the bit, in the last {len(last):,} steps, "
        f"through {log.updates:,} updates in all.",
    )


RULES: tuple[Callable[[LearningLog], Finding | None], ...] = (
    optimizer_never_steps,
    optimizer_seldom_steps,
    learning_rate_zero,
    learning_rate_not_the_schedulers,
    gradients_never_zeroed,
    loss_detached,
    parameters_without_gradient,
    gradients_all_zero,
    parameters_never_change,
    accumulation_wrong_divisor,
    scale_changed_during_accumulation,
    loss_never_changes,
)
