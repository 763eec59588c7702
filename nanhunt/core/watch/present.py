"""Finds what is not finite now, by name, without running the user's code."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from torch import Tensor
from torch.optim import Optimizer

from nanhunt.core.program.target import Target
from nanhunt.core.tensors.stats import count_bad, screen
from nanhunt.core.watch.step_facts import Sink, StepFacts

Named = tuple[str, str, Tensor]


def confirmed(
    facts: StepFacts,
    target: Target,
    optimizers: Collection[Optimizer],
    acquitted: Collection[str] = (),
) -> list[Sink]:
    """What is bad after a step whose screens tripped; finite values may do that, as sums overflow.

    Args:
        facts: what the sentinel saw.
        target: the model.
        optimizers: all that are known.
        acquitted: names of buffers that may be infinite (masks).
    """
    bad = bad_losses(facts.losses)
    if any(label.startswith("gradients") for label in facts.suspects):
        bad += bad_gradients(target, optimizers)
    return bad + bad_state(target, optimizers, acquitted)


def bad_state(
    target: Target, optimizers: Iterable[Optimizer], acquitted: Collection[str] = ()
) -> list[Sink]:
    """Parameters, buffers and optimizer states that hold a NaN or an Inf.

    One synchronisation when all are finite.

    Args:
        target: the model.
        optimizers: those whose state is looked at.
        acquitted: names of buffers that may be infinite (masks).
    """
    return bad_among(list(_state(target, optimizers, acquitted)))


def bad_gradients(target: Target, optimizers: Iterable[Optimizer]) -> list[Sink]:
    """Gradients of the optimizers' parameters that hold a NaN or an Inf."""
    return bad_among(
        [
            ("gradient", name, parameter.grad)
            for optimizer in optimizers
            for name, parameter in target.named_parameters(optimizer)
            if parameter.grad is not None
        ]
    )


def bad_losses(losses: Iterable[Tensor]) -> list[Sink]:
    """Losses that are not finite, as one."""
    return bad_among([("loss", "loss", loss) for loss in losses])[:1]


def seen_losses(facts: StepFacts) -> list[Sink]:
    """The loss of a step as it was seen, if it was not finite; it may have been a mere number."""
    if "returned number" in facts.suspects:
        return [Sink("loss", "loss", None, 1, 0, 0)]
    return bad_losses(facts.losses)


def bad_among(named: Collection[Named]) -> list[Sink]:
    """Those of some tensors that are not finite; one synchronisation when all are."""
    flag = screen(tensor for _, _, tensor in named)
    if flag is None or flag.item() == 0:
        return []
    found = []
    for kind, name, tensor in named:
        nan, posinf, neginf = count_bad(tensor)
        if nan or posinf or neginf:
            found.append(Sink(kind, name, None, nan, posinf + neginf, 0))
    return found


def _state(
    target: Target, optimizers: Iterable[Optimizer], acquitted: Collection[str]
) -> Iterator[Named]:
    for name, parameter in target.parameters.items():
        yield "parameter", name, parameter
    for name, buffer in target.buffers():
        if name not in acquitted:
            yield "buffer", name, buffer
    for optimizer in optimizers:
        for name, value in target.named_state(optimizer):
            yield "state", name, value
