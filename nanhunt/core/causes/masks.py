"""Rules for infinities written on purpose (masks) that became NaN, and for means of nothing."""

from __future__ import annotations

import torch

from nanhunt.core.causes.catalogue import Account, rule
from nanhunt.core.causes.scene import Scene
from nanhunt.core.tensors.dtypes import WHOLE

_SUMS = ("aten.add", "aten.sub", "aten.add_", "aten.sub_", "aten.rsub")
_PRODUCTS = ("aten.mul", "aten.mul_")
_QUOTIENTS = ("aten.div", "aten.div_")
_DEVIATIONS = ("aten.std", "aten.var", "aten.std_mean", "aten.var_mean")
_MEANS = ("aten.mean", "aten.nanmean")
_LIKELIHOODS = ("aten.nll_loss_forward", "aten.nll_loss2d_forward")


@rule("softmax over a row of -Inf is exp(-Inf - (-Inf)) = NaN")
def softmax_fully_masked(scene: Scene) -> Account | None:
    """A softmax (or attention) has a row in which everything is masked."""
    for evidence in (scene.main, scene.forward):
        masked = evidence.extras.get("masked_rows", 0) if evidence else 0
        if evidence is not None and masked and scene.finding.kind == "nan":
            rows = evidence.extras["rows"]
            return Account(
                f"{masked:,.0f} of {rows:,.0f} rows of the softmax are masked completely: nothing "
                "is left to attend to.",
                ruled_out=("not an overflow: the other rows are finite",),
            )
    return None


@rule("IEEE 754-2019, 7.2: Inf - Inf is an invalid operation")
def inf_minus_inf(scene: Scene) -> Account | None:
    """Two infinities were subtracted."""
    evidence = scene.main
    if evidence is None or evidence.packet not in _SUMS or len(evidence.at_bad) < 2:
        return None
    if not all(x.posinf + x.neginf == x.total for x in evidence.at_bad[:2]):
        return None
    return Account(
        f"Both operands are infinite at all {evidence.at_bad[0].total:,} bad positions, and "
        "Inf - Inf is NaN.",
    )


@rule("IEEE 754-2019, 7.2: 0 * Inf is an invalid operation")
def zero_times_inf(scene: Scene) -> Account | None:
    """Zero was multiplied with an infinity."""
    evidence = scene.main
    if evidence is None or evidence.packet not in _PRODUCTS or len(evidence.at_bad) < 2:
        return None
    one, other = evidence.at_bad[:2]
    for zero, infinite in ((one, other), (other, one)):
        if zero.zero == zero.total and infinite.posinf + infinite.neginf == infinite.total:
            return Account(
                f"{zero.name} is 0 where {infinite.name} is infinite, at all {zero.total:,} bad "
                "positions, and 0 * Inf is NaN.",
            )
    return None


@rule("torch.std documentation: divides by max(0, N - correction)")
def deviation_of_one_element(scene: Scene) -> Account | None:
    """A standard deviation or variance with no degree of freedom left."""
    evidence = scene.main
    if evidence is None or evidence.packet not in _DEVIATIONS or not evidence.inputs:
        return None
    count = evidence.inputs[0].numel / max(evidence.outputs[0].numel, 1)
    correction = float(evidence.scalars.get("correction", 1))
    if count - correction > 0:
        return None
    return Account(
        f"The deviation is taken over {count:g} element{'s' if count != 1 else ''}, and the "
        f"correction of {correction:g} leaves nothing to divide by.",
        ruled_out=("not the values: they are finite",),
    )


@rule("torch.nn.CrossEntropyLoss documentation: the mean is over the targets not ignored")
def all_targets_ignored(scene: Scene) -> Account | None:
    """Every target of a cross entropy is to be ignored: a mean over nothing."""
    evidence = scene.main
    if evidence is None or evidence.packet not in _LIKELIHOODS:
        return None
    kept = evidence.extras.get("targets_kept", 1.0)
    if kept and evidence.extras.get("weight_of_targets", 1.0):
        return None
    total = evidence.extras["targets"]
    why = "are ignored" if not kept else "have a class weight of 0"
    return Account(
        f"All {total:,.0f} targets {why}, so the mean loss is 0/0.",
        ruled_out=("not the predictions: they are finite",),
    )


@rule("the mean of no elements is 0/0 (IEEE 754-2019, 7.2)")
def mean_of_nothing(scene: Scene) -> Account | None:
    """A mean over an empty selection."""
    evidence = scene.main
    if evidence is None or not evidence.inputs:
        return None
    if evidence.packet in _MEANS and evidence.inputs[0].numel == 0:
        return Account("The mean is taken over no elements: the selection is empty.")
    if evidence.packet in _QUOTIENTS and _counts(scene):
        zero, count = evidence.bad_input("self"), evidence.bad_input("other")
        if zero and count and zero.zero == zero.total and count.zero == count.total:
            return Account("A sum is divided by a count of 0: nothing was selected.")
    return None


def _counts(scene: Scene) -> bool:
    """Whether the divisor is a number of selected elements: the sum of a mask."""
    assert scene.main is not None
    for made, _ in scene.ancestors(scene.main, "other"):
        if made.packet == "aten.sum" and _descends_from_mask(scene, made.number):
            return True
    return False


def _descends_from_mask(scene: Scene, index: int) -> bool:
    light = scene.lineage.ops[index]
    if any(operand.dtype in WHOLE for operand in light.inputs):
        return True
    return any(
        read.dtype == torch.bool
        for made, _ in scene.lineage.ancestors(light, 3)
        for read in made.inputs
        if made.packet == "aten._to_copy"
    )
