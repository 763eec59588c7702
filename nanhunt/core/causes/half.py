"""Rules for half precision: which operation overflowed, and which cast made ComplexHalf."""

from __future__ import annotations

import torch

from nanhunt.core.causes.catalogue import (
    IEEE,
    NOT_SINGULAR,
    Account,
    is_half,
    overflowed,
    rule,
    says_overflow,
)
from nanhunt.core.causes.scene import Scene, line_of
from nanhunt.core.observe import op_table
from nanhunt.core.observe.evidence import OpEvidence
from nanhunt.core.observe.lineage import LightOp
from nanhunt.core.tensors.dtypes import dtype_name

MATMULS = frozenset(
    f"aten.{name}"
    for name in (
        "mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot",
        "convolution", "mkldnn_linear", "mkldnn_convolution", "_convolution",
        "cudnn_convolution", "linear", "matmul", "einsum",
    )
)  # fmt: skip
BATCHED = frozenset({"aten.bmm", "aten.baddbmm"})
REDUCTIONS = frozenset(
    f"aten.{name}"
    for name in (
        "sum", "mean", "norm", "linalg_vector_norm", "var", "std", "var_mean", "std_mean",
        "cumsum", "prod", "cumprod", "logsumexp", "avg_pool1d", "avg_pool2d", "_cdist_forward",
    )
)  # fmt: skip
ATTENTION = ("scaled_dot_product_attention", "multi_head_attention_forward")


def _half_overflow(scene: Scene) -> OpEvidence | None:
    evidence = scene.main
    forward = scene.finding.phase in ("forward", "backward")
    if evidence is None or not forward or not is_half(evidence) or not overflowed(evidence):
        return None
    return evidence


def _account(scene: Scene, evidence: OpEvidence, sentence: str) -> Account:
    cast = scene.half_cast(evidence)
    return Account(
        sentence, (*says_overflow(evidence), *((cast,) if cast else ())), (NOT_SINGULAR,)
    )


@rule("torch.view_as_complex and torch.complex keep the precision of their parts")
def complex_half_birth(scene: Scene) -> Account | None:
    """Half-precision parts were put together to a complex number: ComplexHalf."""
    if scene.finding.kind != "complex_half" or scene.main is None:
        return None
    halves = [s for s in scene.main.inputs if s.dtype == "float16"]
    if not halves:
        return None
    cast = scene.half_cast(scene.main)
    return Account(
        f"{scene.main.op} makes ComplexHalf out of a float16 tensor"
        f"{', ' + cast if cast else ''}. Its parts end at 65,504 and few operations support it.",
        acquitted_transforms(scene),
    )


def acquitted_transforms(scene: Scene) -> tuple[str, ...]:
    """Fourier transforms of the step whose results kept single precision."""
    clean: dict[str, str] = {}
    for op in scene.lineage.ops.values():
        if op.packet.startswith("aten._fft_"):
            dtypes = {operand.dtype for operand in op.outputs}
            if torch.complex32 in dtypes:
                return ()
            name = op.call.name.rpartition(".")[2] if op.call else op.op
            clean.setdefault(name, f"`{name}`{line_of(op)} returned {dtype_name(dtypes.pop())}")
    return tuple(f"acquitted: {told}" for told in list(clean.values())[:2])


@rule(IEEE)
def complex_half_overflow(scene: Scene) -> Account | None:
    """A ComplexHalf result exceeds what its parts can hold."""
    evidence = _half_overflow(scene)
    if evidence is None or evidence.dtype != torch.complex32:
        return None
    if evidence.packet.startswith("aten._fft_"):
        return None
    cast = scene.half_cast(evidence)
    born = birth_of(scene, evidence)
    birth = (f"ComplexHalf is born in {born.op}{line_of(born)}",) if born else ()
    return Account(
        f"{evidence.op} overflows in ComplexHalf, whose parts end at 65,504.",
        (
            *says_overflow(evidence),
            *birth,
            *((cast,) if cast else ()),
            *acquitted_transforms(scene),
        ),
        (NOT_SINGULAR,),
    )


def birth_of(scene: Scene, evidence: OpEvidence) -> LightOp | None:
    """The operation that made an operand ComplexHalf, the last one before `evidence`."""
    light = scene.light(evidence)
    keys = {o.key for o in light.inputs} if light else set()
    keys |= {read.key for op, _ in scene.ancestors(evidence, depth=12) for read in op.inputs}
    births = (
        op
        for op in scene.lineage.ops.values()
        if any(out.dtype == torch.complex32 and out.key in keys for out in op.outputs)
        and all(read.dtype != torch.complex32 for read in op.inputs)
    )
    return next(births, None)


@rule("the DC bin of an unnormalised FFT is the sum of all its inputs (torch.fft documentation)")
def fft_dc_overflow(scene: Scene) -> Account | None:
    """The DC bin of a Fourier transform does not fit into half precision."""
    evidence = _half_overflow(scene)
    if evidence is None:
        return None
    inside = evidence.packet.startswith("aten._fft_")
    if not inside and evidence.packet not in op_table.CASTS_IN_INFERENCE_TOO:
        return None
    made = [
        op for op, _ in scene.ancestors(evidence, depth=10) if op.packet.startswith("aten._fft_")
    ]
    transforms = [*made, *([light] if inside and (light := scene.light(evidence)) else [])]
    dims = max((len(op.scalars.get("dim", [0])) for op in transforms), default=1)
    if evidence.at_origin < dims or not (inside or made):
        return None
    return _account(
        scene,
        evidence,
        "The DC bin of a Fourier transform, the sum of all its inputs, does not fit into half "
        "precision.",
    )


@rule(IEEE)
def half_fft_overflow(scene: Scene) -> Account | None:
    """A Fourier transform overflows in half precision."""
    evidence = _half_overflow(scene)
    if evidence is None or not evidence.packet.startswith("aten._fft_"):
        return None
    return _account(scene, evidence, "A Fourier transform overflows in half precision.")


@rule(IEEE)
def half_cast_overflow(scene: Scene) -> Account | None:
    """A cast to half precision overflows."""
    evidence = _half_overflow(scene)
    if evidence is None or evidence.packet not in op_table.CASTS_IN_INFERENCE_TOO:
        return None
    assert evidence.double is not None
    return Account(
        f"The cast to {dtype_name(evidence.dtype)} overflows: the value "
        f"{evidence.double.absmax:.4g} is fine before it and does not fit after it.",
        says_overflow(evidence),
        (NOT_SINGULAR, "not the operation that made the value: it was finite"),
    )


@rule("Micikevicius et al. 2018, Mixed Precision Training, section 3; " + IEEE)
def attention_scores_overflow(scene: Scene) -> Account | None:
    """The scores of an attention overflow in half precision before their softmax."""
    evidence = _half_overflow(scene)
    if evidence is None or evidence.packet not in MATMULS:
        return None
    named = evidence.call is not None and evidence.call.name.rpartition(".")[2] in ATTENTION
    # A batched product of two activations that a softmax follows; a classifier's logits are
    # the product with a weight.
    scores = evidence.packet in BATCHED and evidence.extras.get("feeds_softmax")
    if not named and not scores:
        return None
    return _account(scene, evidence, "The product of queries and keys overflows in half precision.")


@rule(IEEE + "; torch.amp documentation: matmuls run in half under autocast")
def half_matmul_overflow(scene: Scene) -> Account | None:
    """A matrix product or convolution overflows in half precision."""
    evidence = _half_overflow(scene)
    if evidence is None or evidence.packet not in MATMULS:
        return None
    return _account(scene, evidence, f"{evidence.op} overflows in half precision.")


@rule(IEEE)
def half_reduction_overflow(scene: Scene) -> Account | None:
    """A sum, mean, norm or variance overflows in half precision."""
    evidence = _half_overflow(scene)
    if evidence is None or evidence.packet not in REDUCTIONS:
        return None
    large = sorted(
        (n for n in scene.roots(evidence, 16) if n.stats.absmax is not None),
        key=lambda n: -(n.stats.absmax or 0.0),
    )[:1]
    told = tuple(
        f"its operands descend from {n.role} {n.name}, up to {n.stats.absmax:.3g}" for n in large
    )
    account = _account(scene, evidence, f"{evidence.op} adds up to more than half precision holds.")
    return account._replace(evidence=(*account.evidence, *told))


@rule("torch.nn.BatchNorm keeps its statistics in the dtype of its buffers")
def batch_norm_statistics_overflow(scene: Scene) -> Account | None:
    """The running statistics of a half-precision batch norm overflow."""
    evidence = _half_overflow(scene)
    if evidence is None or "batch_norm" not in evidence.packet:
        return None
    return _account(
        scene,
        evidence,
        f"The statistics of this batch overflow the {dtype_name(evidence.dtype)} buffers of "
        f"{scene.finding.module or 'the batch norm'}.",
    )
