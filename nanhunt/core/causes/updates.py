"""Rules for the optimizer's update: its state, epsilon, loss scale, too large a change."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from nanhunt.core.causes.catalogue import (
    IEEE,
    NOT_SINGULAR,
    Account,
    overflowed,
    rule,
    says_overflow,
)
from nanhunt.core.causes.scene import Scene
from nanhunt.core.observe.evidence import OpEvidence
from nanhunt.core.tensors.dtypes import dtype_name, largest_number
from nanhunt.core.watch.magnitudes import Growth

_SQUARES = ("addcmul", "mul", "addcmul_")
_ROOTS = ("sqrt", "sqrt_")
_QUOTIENTS = ("addcdiv", "addcdiv_", "div", "div_")
EXPLODED = 100.0  # no initialisation and no ordinary run has weights of this size
EXPLODING_RATE = 1.3  # per step; a healthy run's largest weight changes by parts of a percent


def _update(scene: Scene) -> OpEvidence | None:
    return scene.main if scene.finding.phase == "optimizer" else None


def _bare(evidence: OpEvidence) -> str:
    """`aten._foreach_addcmul_` -> `addcmul_`."""
    return evidence.packet.removeprefix("aten.").removeprefix("_foreach_")


@rule("torch.amp.GradScaler.unscale_ multiplies by 1/scale, computed in float32")
def loss_scale_collapsed(scene: Scene) -> Account | None:
    """The loss scale is so small that its reciprocal is Inf."""
    if _update(scene) is None:
        return None
    for scaler in scene.scalers:
        scale = scaler.get_scale()
        if scaler.is_enabled() and (scale == 0 or 1 / scale > torch.finfo(torch.float32).max):
            return Account(
                f"The loss scale has fallen to {scale:.3g}: unscaling multiplies by its "
                "reciprocal, which is Inf in float32.",
                ruled_out=("not the gradients: they were finite before they were unscaled",),
            )
    return None


@rule("Kingma and Ba 2015, algorithm 1: v is an average of squares, so never negative")
def negative_second_moment(scene: Scene) -> Account | None:
    """An optimizer takes the root of a negative second moment."""
    evidence = _update(scene)
    if evidence is None or _bare(evidence) not in _ROOTS:
        return None
    operand = evidence.bad_input()
    if operand is None or operand.negative < operand.total:
        return None
    return Account(
        "A second moment of the optimizer is negative, which no average of squares can be: it "
        "was restored or written wrongly.",
        (f"{operand.negative:,} negative entries, down to {operand.minimum:.3g}",),
        ("not an overflow: the operand is finite",),
    )


@rule(IEEE)
def second_moment_overflow(scene: Scene) -> Account | None:
    """A squared gradient overflows the optimizer's second moment."""
    evidence = _update(scene)
    if evidence is None or _bare(evidence) not in _SQUARES or evidence.dtype is None:
        return None
    gradient = evidence.bad_input("tensor1", "tensors1")
    if gradient is None:
        return None
    size = max(abs(gradient.minimum), abs(gradient.maximum))
    if size**2 < largest_number(evidence.dtype) or gradient.posinf or gradient.neginf:
        return None
    return Account(
        f"The square of a gradient of {size:.3g} does not fit into the second moment's "
        f"{dtype_name(evidence.dtype)}.",
        ruled_out=("not a bad gradient: it is finite",),
    )


@rule("torch.optim.Adam: eps is added to the root of the second moment; 1e-8 is 0 in float16")
def optimizer_epsilon_lost(scene: Scene) -> Account | None:
    """The optimizer's epsilon is zero in the dtype of the parameters."""
    evidence = _update(scene)
    if evidence is None or evidence.dtype is None or _bare(evidence) not in _QUOTIENTS:
        return None
    divisor = evidence.bad_input("tensor2", "tensors2", "other")
    epsilon = _lost_epsilon(scene.optimizers, evidence.dtype)
    if divisor is None or divisor.zero < divisor.total or epsilon is None:
        return None
    lost = f"{epsilon:g} is 0 in {dtype_name(evidence.dtype)}" if epsilon else "is 0"
    return Account(
        f"The optimizer's eps {lost}, so its update divides by zero where the second moment is "
        "zero.",
        (f"the divisor is 0 at all {divisor.total:,} bad positions",),
        ("not an overflow: the divisor is zero, not the quotient too large",),
    )


def _lost_epsilon(optimizers: list[Optimizer], dtype: torch.dtype) -> float | None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            epsilon = group.get("eps")
            if isinstance(epsilon, float) and float(torch.tensor(epsilon, dtype=dtype)) == 0:
                return epsilon
    return None


@rule("torch.amp documentation: optimizer.step() of scaled gradients must go through scaler.step()")
def scaled_gradients_stepped(scene: Scene) -> Account | None:
    """The loss was scaled, and the optimizer stepped without its scaler."""
    growth = exploding(scene)
    if not scene.plain_step_with_scaler or growth is None:
        return None
    scale = max((scaler.get_scale() for scaler in scene.scalers), default=1.0)
    return Account(
        f"The loss is scaled by {scale:g}, but optimizer.step() is called directly, so updates "
        "are that many times too large.",
        (str(growth),),
    )


@rule("torch.amp.GradScaler.scale multiplies; unscale_ divides by the scale once")
def scaled_twice(scene: Scene) -> Account | None:
    """The loss was scaled twice, and its gradients overflow or explode."""
    overflow = overflowed(scene.main) or overflowed(scene.forward)
    in_backward = scene.finding.phase in ("backward", "optimizer") and overflow
    if not scene.scaled_twice or not (in_backward or exploding(scene)):
        return None
    scale = max((scaler.get_scale() for scaler in scene.scalers), default=1.0)
    return Account(
        f"The loss went through scaler.scale() twice: it is multiplied by {scale:g} once more "
        "than its gradients are divided.",
    )


@rule("Goodfellow, Bengio, Courville 2016, section 8.3.1: too large a learning rate diverges")
def exploding_update(scene: Scene) -> Account | None:
    """The parameters grew step by step until an operation overflowed."""
    growth = exploding(scene)
    if growth is None:
        return None
    return Account(
        f"The updates are too large: {growth}. The overflow is only where it shows.",
        ruled_out=("not a single bad batch: the growth began steps before",),
    )


def exploding(scene: Scene) -> Growth | None:
    """Growth of the parameters that ends in an overflow, if that is what happened."""
    if not (overflowed(scene.main) or overflowed(scene.forward)):
        return None
    return next(
        (
            growth
            for growth in scene.growths
            if growth.what == "parameters"
            and growth.rate >= EXPLODING_RATE
            and growth.last >= EXPLODED
        ),
        None,
    )


@rule(IEEE)
def update_overflow(scene: Scene) -> Account | None:
    """An update (learning rate times gradient, weight decay) is beyond the parameter's dtype."""
    evidence = _update(scene)
    if evidence is None or not overflowed(evidence):
        return None
    rates = sorted({float(g["lr"]) for o in scene.optimizers for g in o.param_groups if "lr" in g})
    told = (f"learning rates: {', '.join(f'{rate:g}' for rate in rates)}",) if rates else ()
    return Account(
        f"The update itself is too large: {evidence.op} leaves the range of "
        f"{dtype_name(evidence.dtype)}.",
        (*says_overflow(evidence), *told),
        ("not a bad gradient: the operation's inputs are finite",),
    )


@rule("van den Oord et al. 2017, appendix A.1: codes follow averages of what they encode")
def buffer_drift(scene: Scene) -> Account | None:
    """A buffer that the step writes (a codebook, an average) grew until it overflowed."""
    evidence = scene.main
    if evidence is None or not overflowed(evidence) or scene.finding.tensor is None:
        return None
    if scene.finding.phase != "forward":
        return None
    growth = next((g for g in scene.growths if g.what == "buffers"), None)
    written = any(n.role == "buffer" for n in scene.roots(evidence))
    if growth is None or growth.rate < EXPLODING_RATE or not written:
        return None
    return Account(
        f"The buffer {scene.finding.tensor} drifts: {growth}.",
        says_overflow(evidence),
        (NOT_SINGULAR,),
    )
