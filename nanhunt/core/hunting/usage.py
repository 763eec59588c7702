"""Is this call a hunt at all? Checks before the first step and after the first ones."""

from __future__ import annotations

import inspect
from typing import Any

from torch.optim import Optimizer

from nanhunt.core.program.target import Target
from nanhunt.core.watch.step_facts import StepFacts
from nanhunt.errors import NoBackwardError, NoOptimizerError, StepFunctionError


def check_step_fn(step_fn: Any, takes_batch: bool) -> None:
    """Makes sure that `step_fn` can be called as a hunt calls it.

    Raises:
        StepFunctionError: it cannot.
    """
    if not callable(step_fn):
        raise StepFunctionError(
            f"step_fn is of type {type(step_fn).__name__} and cannot be called. Pass the function "
            "itself, without parentheses."
        )
    try:
        signature = inspect.signature(step_fn, follow_wrapped=False)
    except (TypeError, ValueError):  # some built-in callables have none
        return
    try:
        signature.bind(*([None] if takes_batch else []))
    except TypeError as error:
        wanted, hint = (
            ("one batch", "Give it exactly one parameter.")
            if takes_batch
            else (
                "no argument",
                "Wrap it (`lambda: step(batch)`), or pass data= so that each call gets a batch.",
            )
        )
        raise StepFunctionError(
            f"step_fn{signature} must take {wanted} here ({error}). {hint}"
        ) from None


def check_training(facts: StepFacts, target: Target, optimizers: list[Optimizer]) -> bool:
    """Asks after a healthy step whether this is training at all.

    Gradients may come from backward, or be written by hand (`torch.func`). Weights in half
    precision have an optimizer of copies: it holds nothing of the model, and has gradients.

    Returns:
        Whether that is answered. A step that computes no loss may fill a memory of what is
        learned from later: the next ones tell.

    Raises:
        NoBackwardError: there is a loss, and `backward` was never called.
        NoOptimizerError: no optimizer that holds a parameter of the model is known.
    """
    if not target.training:
        return True
    if not facts.backwards and not facts.had_gradients:
        if not any(loss.requires_grad for loss in facts.losses):
            return False
        raise NoBackwardError(
            "step_fn never called backward() although the model is in training mode. Call "
            "loss.backward() inside step_fn, or call model.eval() first if this is meant to be an "
            "evaluation step."
        )
    if not facts.had_gradients and not any(target.owns(optimizer) for optimizer in optimizers):
        raise NoOptimizerError(
            "no optimizer holds a parameter of this model, so nothing is trained. Build the "
            "optimizer from model.parameters() and step it inside step_fn, or pass optimizer=() "
            "if the step updates parameters by hand."
        )
    return True
