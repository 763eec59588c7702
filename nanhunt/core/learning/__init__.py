"""Judges training that is finite and does not learn."""

from __future__ import annotations

from collections.abc import Callable

from nanhunt.core.learning import parameters, updates
from nanhunt.core.learning.log import LearningLog
from nanhunt.core.learning.updates import never_stepped
from nanhunt.records.report import Finding

__all__ = ["RULES", "LearningLog", "never_stepped", "not_training"]

RULES: tuple[Callable[[LearningLog], Finding | None], ...] = (
    updates.optimizer_never_steps,
    updates.optimizer_seldom_steps,
    updates.forwards_without_backward,
    updates.learning_rate_zero,
    updates.learning_rate_not_the_schedulers,
    updates.gradients_never_zeroed,
    parameters.loss_detached,
    parameters.parameters_without_gradient,
    parameters.gradients_all_zero,
    parameters.parameters_in_no_optimizer,
    parameters.updates_lost_in_rounding,
    parameters.parameters_never_change,
    updates.accumulation_wrong_divisor,
    updates.scale_changed_during_accumulation,
    updates.clipped_before_unscaling,
    updates.loss_scaled_twice,
    updates.loss_never_changes,
)
# What is a consequence where another cause was found.
_FOLLOWS = {
    "parameters_never_change": {"learning_rate_zero", "parameters_in_no_optimizer"},
    "loss_never_changes": {rule.__name__ for rule in RULES} - {"loss_never_changes"},
}


def not_training(log: LearningLog) -> list[Finding]:
    """Every rule whose evidence holds at the end of a run that stayed finite."""
    found = [finding for rule in RULES if (finding := rule(log)) is not None]
    causes = {finding.cause for finding in found if finding.severity == "critical"}
    return [finding for finding in found if not causes & _FOLLOWS.get(finding.cause, set())]
