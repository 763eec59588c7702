"""Rules for operations at a singular point (log of 0, division by 0) or beyond their range."""

from __future__ import annotations

import math

import torch

from nanhunt.core.causes.catalogue import (
    IEEE,
    NOT_RANGE,
    NOT_SINGULAR,
    Account,
    exponent_limit,
    is_half,
    overflowed,
    rule,
    says_overflow,
    singular,
)
from nanhunt.core.causes.epsilon import lost_epsilon
from nanhunt.core.causes.scene import Scene
from nanhunt.core.observe.evidence import AtBad
from nanhunt.core.observe.lineage import LightOp
from nanhunt.core.tensors.dtypes import dtype_name

_LOGS = ("aten.log", "aten.log2", "aten.log10", "aten.log_")
_QUOTIENTS = ("aten.div", "aten.div_", "aten.reciprocal", "aten.rsqrt", "aten.true_divide")
_EXPS = ("aten.exp", "aten.exp_", "aten.exp2", "aten.expm1", "aten.cosh", "aten.sinh")
_INVALID = "IEEE 754-2019, 7.2 and 7.3: invalid operations and division by zero"
_DOMAINS = {
    "aten.acos": "-1 to 1",
    "aten.asin": "-1 to 1",
    "aten.atanh": "-1 to 1",
    "aten.erfinv": "-1 to 1",
    "aten.special_erfinv": "-1 to 1",
}
_SIZES = frozenset(
    f"aten.{name}" for name in ("abs", "norm", "linalg_vector_norm", "sum", "amax", "max", "std")
)


def _operand(scene: Scene, packets: tuple[str, ...], *names: str) -> AtBad | None:
    evidence = scene.main
    if evidence is None or evidence.packet not in packets or not singular(evidence):
        return None
    return evidence.bad_input(*names)


def _all_zero(entry: AtBad | None) -> bool:
    return entry is not None and entry.zero == entry.total


@rule("IEEE 754-2019 binary16: the smallest positive number is 6e-8, so 1e-8 becomes 0")
def epsilon_lost(scene: Scene) -> Account | None:
    """An epsilon that should prevent a division by zero is itself 0 in half precision."""
    evidence = scene.main
    if evidence is None or evidence.packet not in (*_QUOTIENTS, *_LOGS):
        return None
    argument = "other" if len(evidence.inputs) > 1 else "self"
    if not _all_zero(evidence.bad_input(argument)):
        return None
    lost = lost_epsilon(scene, evidence, argument)
    if lost is None:
        return None
    return Account(
        f"The epsilon {lost.value:g} that should keep {evidence.op} away from 0 is itself 0 in "
        f"{lost.dtype}.",
        (f"the operand is 0 at all {evidence.at_bad[0].total:,} bad positions", lost.where),
    )


@rule(_INVALID)
def log_of_zero(scene: Scene) -> Account | None:
    """A logarithm of exactly 0."""
    entry = _operand(scene, _LOGS)
    if not _all_zero(entry) or entry is None:
        return None
    return Account(
        f"The input of the logarithm is exactly 0 at all {entry.total:,} bad positions.",
        ruled_out=(NOT_RANGE,),
    )


@rule(_INVALID)
def log_of_negative(scene: Scene) -> Account | None:
    """A logarithm of a negative number."""
    entry = _operand(scene, _LOGS)
    if entry is None or entry.negative != entry.total:
        return None
    return Account(
        f"The input of the logarithm is negative at all {entry.total:,} bad positions (down to "
        f"{entry.minimum:.3g}).",
        ruled_out=(NOT_RANGE,),
    )


@rule(_INVALID)
def sqrt_of_negative(scene: Scene) -> Account | None:
    """A square root of a negative number."""
    entry = _operand(scene, ("aten.sqrt", "aten.sqrt_", "aten.rsqrt"))
    if entry is None or entry.negative != entry.total:
        return None
    return Account(
        f"The input of the root is negative at all {entry.total:,} bad positions (down to "
        f"{entry.minimum:.3g}).",
        ruled_out=(NOT_RANGE,),
    )


@rule("van den Oord et al. 2017, appendix A.1: a code that nothing is assigned to has count 0")
def dead_codebook_entries(scene: Scene) -> Account | None:
    """A moving average is divided by a count of uses that is 0: dead codes."""
    entry = _operand(scene, ("aten.div", "aten.div_"), "other")
    if scene.main is None or not _all_zero(entry) or entry is None:
        return None
    counts = [n for n in scene.straight_from(scene.main, "other") if n.role == "buffer"]
    if not counts or not counts[0].stats.zeros:
        return None
    return Account(
        f"{entry.total:,} elements are divided by a count of 0: the buffer {counts[0].name} has "
        f"{counts[0].stats.zeros:,} entries that are 0 at the start of the step, codes that "
        "nothing was assigned to.",
        ruled_out=(NOT_RANGE,),
    )


@rule(_INVALID)
def normalisation_of_zero(scene: Scene) -> Account | None:
    """A vector of zeros was divided by its own size."""
    zero, size = (_operand(scene, ("aten.div", "aten.div_"), n) for n in ("self", "other"))
    if scene.main is None or not _all_zero(zero) or not _all_zero(size) or zero is None:
        return None
    light = scene.light(scene.main)
    own = {o.key for o in light.inputs if o.name == "self"} if light else set()
    of_itself = any(
        any(read.key in own for read in made.inputs) and _is_size(made)
        for made, _ in scene.ancestors(scene.main, "other")
    )
    if not of_itself:
        return None
    return Account(
        f"A tensor is divided by its own size, which is 0 at all {zero.total:,} bad positions: "
        "0/0.",
        ruled_out=(NOT_RANGE,),
    )


def _is_size(made: LightOp) -> bool:
    """Whether an operation measures how large its input is."""
    square = made.packet == "aten.pow" and made.scalars.get("exponent") == 2
    return made.packet in _SIZES or square


@rule(_INVALID)
def zero_by_zero(scene: Scene) -> Account | None:
    """Zero was divided by zero."""
    zero, divisor = (_operand(scene, ("aten.div", "aten.div_"), n) for n in ("self", "other"))
    if not _all_zero(zero) or not _all_zero(divisor) or zero is None:
        return None
    return Account(
        f"Numerator and divisor are both exactly 0 at all {zero.total:,} bad positions.",
        ruled_out=(NOT_RANGE,),
    )


@rule(_INVALID)
def division_by_zero(scene: Scene) -> Account | None:
    """A number was divided by zero."""
    entry = _operand(scene, ("aten.div", "aten.div_"), "other")
    if entry is None:
        entry = _operand(scene, ("aten.reciprocal", "aten.rsqrt"))
    if not _all_zero(entry) or entry is None:
        return None
    return Account(
        f"The divisor is exactly 0 at all {entry.total:,} bad positions.", ruled_out=(NOT_RANGE,)
    )


@rule("IEEE 754-2019, 9.2.1: pow of a negative number and a fraction is invalid")
def power_of_negative(scene: Scene) -> Account | None:
    """A negative number was raised to a fractional power."""
    entry = _operand(scene, ("aten.pow",), "self")
    exponent = scene.main.scalars.get("exponent") if scene.main else None
    if entry is None or entry.negative != entry.total or scene.finding.kind != "nan":
        return None
    if not isinstance(exponent, float) or exponent.is_integer():
        return None
    return Account(
        f"A negative number (down to {entry.minimum:.3g}) is raised to the power {exponent:g}.",
        ruled_out=(NOT_RANGE,),
    )


@rule("IEEE 754-2019, 9.2.1: pow of 0 and a negative number divides by zero")
def power_of_zero(scene: Scene) -> Account | None:
    """Zero was raised to a negative power."""
    entry = _operand(scene, ("aten.pow",), "self")
    exponent = scene.main.scalars.get("exponent") if scene.main else None
    if not _all_zero(entry) or not isinstance(exponent, int | float) or exponent >= 0:
        return None
    return Account(f"0 is raised to the power {exponent:g}.", ruled_out=(NOT_RANGE,))


@rule("torch documentation of acos, asin, atanh and erfinv: NaN outside, Inf at the edge")
def outside_domain(scene: Scene) -> Account | None:
    """An inverse function was asked beyond, or exactly at, the end of its domain."""
    entry = _operand(scene, tuple(_DOMAINS))
    if entry is None or scene.main is None:
        return None
    domain = _DOMAINS[scene.main.packet]
    if entry.beyond_one == entry.total:
        where = f"beyond it at all {entry.total:,} bad positions, up to {entry.maximum:.6g}"
    elif entry.at_one == entry.total and scene.finding.kind == "inf":
        where = f"exactly at its end at all {entry.total:,} bad positions"
    else:
        return None
    return Account(
        f"{scene.main.op} is defined from {domain}, and its input is {where}.",
        ruled_out=(NOT_RANGE,),
    )


@rule(IEEE + ": exp overflows at 88.7 in float32 and at 11.09 in float16")
def exp_overflow(scene: Scene) -> Account | None:
    """An exponential of too large a number."""
    evidence = scene.main
    if evidence is None or evidence.packet not in _EXPS or evidence.dtype is None:
        return None
    entry = evidence.bad_input()
    if entry is None or entry.posinf or not evidence.dtype.is_floating_point:
        return None
    base = math.log(2) if evidence.packet == "aten.exp2" else 1.0
    bound = exponent_limit(evidence.dtype) / base
    lowest = min(abs(entry.minimum), abs(entry.maximum))
    if lowest < bound * 0.999:
        return None
    cast = scene.half_cast(evidence) if is_half(evidence) else ""
    return Account(
        f"{evidence.op} of {entry.maximum:.4g}: in {dtype_name(evidence.dtype)} it overflows from "
        f"{bound:.4g} on.",
        (cast,) if cast else (),
    )


@rule(IEEE)
def half_overflow(scene: Scene) -> Account | None:
    """An elementwise operation overflows in half precision."""
    evidence = scene.main
    if evidence is None or not is_half(evidence) or not overflowed(evidence):
        return None
    cast = scene.half_cast(evidence)
    return Account(
        f"{evidence.op} overflows in {dtype_name(evidence.dtype)}.",
        (*says_overflow(evidence), *((cast,) if cast else ())),
        (NOT_SINGULAR,),
    )


@rule(IEEE)
def float32_overflow(scene: Scene) -> Account | None:
    """A result is larger than float32 can hold."""
    evidence = scene.main
    if evidence is None or evidence.dtype != torch.float32 or not overflowed(evidence):
        return None
    large = sorted(
        (n for n in scene.roots(evidence) if n.stats.absmax is not None),
        key=lambda n: -(n.stats.absmax or 0.0),
    )[:1]
    told = tuple(
        f"its operands descend from {n.role} {n.name}, up to {n.stats.absmax:.3g}" for n in large
    )
    return Account(
        f"{evidence.op} gives more than float32 can hold.",
        (*says_overflow(evidence), *told, *(str(growth) for growth in scene.growths)),
        (NOT_SINGULAR,),
    )
