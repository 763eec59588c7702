"""When a step with a remedy is a cure: it is finite, as large as the steps before, and learns."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from nanhunt.core.tensors.stats import largest
from nanhunt.core.watch.magnitudes import Usual
from nanhunt.core.watch.step_facts import StepFacts

# Batches differ, and a logarithm cut off at 1e-6 is 14 where others are 0.5.
_TIMES = 100.0


def why_not_healthy(facts: StepFacts, usual: Usual, *, may_idle: bool = False) -> str:
    """What is wrong with a step whose every number is finite, or an empty string.

    Args:
        facts: the step, tested exactly, its gradients kept.
        usual: the steps before it.
        may_idle: whether it is right that it learns nothing.
    """
    loss = _size(facts.losses[-1:])
    if loss is not None and usual.loss and loss > _TIMES * usual.loss:
        return f"finite, but the loss is {loss:.3g} and was at most {usual.loss:.3g} before"
    gradient = _size(facts.gradients.values())
    if gradient is None or not usual.gradients:
        return ""
    if not gradient:
        return "" if may_idle else "finite, but every gradient is 0: the step learns nothing"
    if gradient > _TIMES * usual.gradients:
        before = f"{usual.gradients:.3g}"
        return f"finite, but a gradient is {gradient:.3g} and was at most {before} before"
    return ""


def _size(tensors: Iterable[Tensor]) -> float | None:
    size = largest(tensors)
    return None if size is None else float(size)
