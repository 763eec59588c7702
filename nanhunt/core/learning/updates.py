"""Rules about updates: how many, at which rate, of which gradients."""

from __future__ import annotations

import dataclasses

from nanhunt.core.learning.log import MANY_PASSES, LearningLog, OptimizerLog
from nanhunt.core.learning.telling import ENOUGH_CALLS, ENOUGH_UPDATES, counted, finding
from nanhunt.core.program.target import parameters_of
from nanhunt.records.report import Finding


def optimizer_never_steps(log: LearningLog) -> Finding | None:
    """No update in the whole run. Source: an update is what changes parameters."""
    if log.updates or log.steps < ENOUGH_CALLS or not log.optimizers or not any(log.backwards):
        return None
    calls = f"The optimizer made 0 updates in {counted(log.steps, 'call')} of step_fn"
    passes = counted(sum(log.backwards), "backward pass")
    if log.skips:
        why = f"GradScaler skipped all {log.skips:,}: the gradients were never finite at its scale"
    else:
        why = "optimizer.step() was never called"
    return finding(log, "optimizer_never_steps", f"{calls}: {why}.", (f"{passes} ran",))


def never_stepped(log: LearningLog, zeroings: int, backwards: int) -> Finding | None:
    """No update in a whole loop that is not known step by step.

    An attack, or maps of what a model looks at, run backward too: an optimizer that zeroes
    gradients again and again is there to train.

    Args:
        log: begun before the loop.
        zeroings: how often optimizers of the model have zeroed gradients.
        backwards: number of backward passes.
    """
    waiting = any(p.grad is not None for p in log.target.parameters.values())
    if min(zeroings, backwards) < ENOUGH_CALLS or not waiting:
        return None
    if len(log.unchanged()) < len(log.target.parameters):  # updated by hand
        return None
    passes = counted(backwards, "backward pass")
    return finding(
        log,
        "optimizer_never_steps",
        f"The optimizer zeroed gradients {zeroings:,} times and made 0 updates in {passes}: "
        "optimizer.step() was never called.",
        ("every parameter has the bits that it had before the loop",),
    )


def optimizer_seldom_steps(log: LearningLog) -> Finding | None:
    """Updates come irregularly and far more seldom than the shortest distance between two.

    Gradient accumulation updates at a fixed distance; a loop that leaves updates out does not.
    """
    if not log.updates or log.steps < ENOUGH_CALLS or len(log.logs) != 1:
        return None
    (only,) = log.logs.values()
    shortest = only.shortest if only.shortest is not None else only.first_steps[0] + 1
    expected = (log.steps - only.first_steps[0]) / shortest  # a memory may be filled before that
    if only.steps >= 0.5 * expected or expected < 4 or only.skipped > only.steps:
        return _skipped_mostly(log, only)
    without_backward = sum(count == 0 for count in log.backwards)
    why = (
        f"{counted(without_backward, 'call')} ran no backward pass: the loop's own check left "
        "them out"
        if without_backward > log.steps // 4
        else "the loop called optimizer.step() no more often"
    )
    return finding(
        log,
        "optimizer_seldom_steps",
        f"The optimizer made {counted(only.steps, 'update')} in {log.steps:,} calls of step_fn, "
        f"although two of them came only {counted(shortest, 'call')} apart: {why}.",
        (f"updates in the steps {', '.join(map(str, only.first_steps[:12]))}",),
    )


def forwards_without_backward(log: LearningLog) -> Finding | None:
    """The model runs and gradients are zeroed for each of many batches, backward runs for few.

    So it is where backward stands after the loop over the batches instead of in it. A rollout
    zeroes no gradients, accumulation zeroes them once.
    """
    times = len(log.zeroed_in_vain)
    if times < ENOUGH_UPDATES or 2 * times < log.steps or log.forwards < MANY_PASSES:
        return None
    zeroed, backwards = log.zeroed_in_vain[-1]
    if log.forwards <= 2 * backwards:
        return None
    passes = counted(backwards, "backward pass")
    return finding(
        log,
        "forwards_without_backward",
        f"In {times:,} of {log.steps:,} steps gradients were zeroed as often as {zeroed:,} times "
        f"for {passes}, with {log.forwards:,} calls of the model: most batches are never learned "
        "from. Is backward meant to be inside the loop over them?",
    )


def _skipped_mostly(log: LearningLog, only: OptimizerLog) -> Finding | None:
    if only.skipped <= max(only.updates, ENOUGH_CALLS // 2):
        return None
    return finding(
        log,
        "optimizer_seldom_steps",
        f"The optimizer made {counted(only.updates, 'update')} in {log.steps:,} calls of "
        f"step_fn: GradScaler skipped {only.skipped:,} of them.",
    )


def learning_rate_zero(log: LearningLog) -> Finding | None:
    """Every update of an optimizer had a learning rate of 0."""
    for entry in log.logs.values():
        if entry.updates >= ENOUGH_UPDATES and entry.rated and not entry.moving:
            return finding(
                log,
                "learning_rate_zero",
                f"All {entry.updates:,} updates were made with a learning rate of 0.",
                _owned_by(entry),
            )
    return None


def _owned_by(entry: OptimizerLog) -> tuple[str, ...]:
    count = len(parameters_of(entry.optimizer))
    return (f"{type(entry.optimizer).__name__} with {counted(count, 'parameter')}",)


def learning_rate_not_the_schedulers(log: LearningLog) -> Finding | None:
    """The scheduler drives another optimizer, or its rate is overwritten before the update.

    Source: torch.optim.lr_scheduler: a scheduler writes `lr` of the optimizer it was given.
    """
    for scheduler, times in log.driven_elsewhere():
        if times < ENOUGH_UPDATES:
            continue
        return finding(
            log,
            "learning_rate_not_the_schedulers",
            f"{type(scheduler).__name__} was stepped {times:,} times, but the optimizer it was "
            "built with never made an update: it drives another optimizer.",
        )
    for entry in log.logs.values():
        if entry.said >= ENOUGH_UPDATES and not entry.scheduled:
            rate = entry.rates[0] if entry.rates else float("nan")
            return finding(
                log,
                "learning_rate_not_the_schedulers",
                f"None of {entry.said:,} updates used the learning rate of its scheduler: "
                f"something else sets it (last used: {rate:g}).",
                _owned_by(entry),
            )
    return None


def gradients_never_zeroed(log: LearningLog) -> Finding | None:
    """Gradients of all former steps add up: nobody zeroes them between update and backward."""
    for entry in log.logs.values():
        if entry.known >= ENOUGH_UPDATES and not entry.zeroed:
            return finding(
                log,
                "gradients_never_zeroed",
                f"After none of {entry.known:,} updates were the gradients zeroed before the next "
                "backward: they are sums over all steps so far.",
                _owned_by(entry),
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
    if entry.updates != entry.steps:
        return None
    steps = entry.first_steps  # all of them: there is a ratio for every step
    gaps = {b - a for a, b in zip([-1, *steps], steps, strict=False)}
    if len(gaps) != 1 or len(steps) < 3 or any(count != 1 for count in log.backwards):
        return None
    (every,) = gaps
    if every == divisor:
        return None
    return finding(
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
    looked_at = log.scale_values().values()
    mixed = [values for values in looked_at if len(values) > 1]
    if not mixed or log.updates < 2:
        return None
    return finding(
        log,
        "scale_changed_during_accumulation",
        f"In {len(mixed):,} of {len(looked_at):,} updates the loss scale changed between the "
        "micro-batches that were added up: their gradients have different scales.",
        (f"scales within one update: {', '.join(f'{v:g}' for v in sorted(mixed[0]))}",),
    )


def clipped_before_unscaling(log: LearningLog) -> Finding | None:
    """Gradients are clipped while they are still multiplied by the loss scale.

    Source: torch.amp examples, gradient clipping: call `scaler.unscale_(optimizer)` before.
    """
    if log.clipped_scaled is None or log.steps < ENOUGH_UPDATES:
        return None
    sources = log.clipped_scaled.sources()
    made = finding(
        log,
        "clipped_before_unscaling",
        "Gradients are clipped before they are unscaled: the bound applies to gradients times "
        f"the loss scale, in all {log.steps:,} steps.",
        severity="warning",
    )
    return dataclasses.replace(made, source=sources[-1] if sources else None, stack=sources)


def loss_scaled_twice(log: LearningLog) -> Finding | None:
    """A loss goes through the scaler twice, and is unscaled once.

    Source: torch.amp.GradScaler.scale multiplies; unscale_ divides by the scale once.
    """
    if log.scaled_twice < ENOUGH_UPDATES:
        return None
    return finding(
        log,
        "loss_scaled_twice",
        f"In {log.scaled_twice:,} of {log.steps:,} steps the loss went through scaler.scale() "
        "twice, and is unscaled once: gradients are too large by the loss scale.",
    )


def loss_never_changes(log: LearningLog) -> Finding | None:
    """The loss is the same, to the bit, over many updates.

    One that has never been lower has arrived where it stands.
    """
    values = log.loss_values()
    last = values[-2 * ENOUGH_UPDATES :]
    if log.updates < 2 * ENOUGH_UPDATES or len(last) < 2 * ENOUGH_UPDATES:
        return None
    if len(set(last)) != 1 or last[0] == 0:
        return None
    if max(values) > min(values) == last[0]:
        return None
    return finding(
        log,
        "loss_never_changes",
        f"The loss was {last[0]:.6g}, the same to the bit, in the last {len(last):,} steps, "
        f"through {log.updates:,} updates in all.",
    )
