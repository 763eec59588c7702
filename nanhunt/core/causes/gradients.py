"""Rules for a backward pass that fails after a healthy forward pass."""

from __future__ import annotations

from nanhunt.core.causes.catalogue import (
    IEEE,
    NOT_SINGULAR,
    Account,
    finite_in_double,
    is_half,
    overflowed,
    rule,
    says_overflow,
)
from nanhunt.core.causes.epsilon import lost_epsilon
from nanhunt.core.causes.scene import Scene
from nanhunt.core.observe.evidence import AtBad

_DERIVATIVES = "tools/autograd/derivatives.yaml of PyTorch: the formula of this node's backward"
_DEGENERATE = "torch.linalg documentation: gradients are finite only when values are distinct"
DISTINCT = 1e-7  # relative gap below which float32 cannot tell two eigenvalues apart


def _forward_at(scene: Scene, *names: str) -> AtBad | None:
    return scene.forward.bad_input(*names) if scene.forward is not None else None


def _all(count: int, entry: AtBad) -> bool:
    return count == entry.total


@rule("github.com/pytorch/pytorch issue 4132: torch.where and NaN gradients of the other branch")
def where_trap(scene: Scene) -> Account | None:
    """The branch that `where` does not select still gets a gradient: 0 times Inf."""
    selection = scene.selection
    if selection is None or scene.forward is None or scene.finding.phase != "backward":
        return None
    return Account(
        f"{scene.forward.op} is evaluated where {selection.op} throws its result away; the "
        "gradient there is 0 times Inf, which is NaN.",
        (
            f"at all {selection.total:,} bad positions the forward result is not used",
            *_at_zero(scene),
        ),
        ("not the values that are used: their gradients are finite",),
    )


def _at_zero(scene: Scene) -> tuple[str, ...]:
    entries = scene.forward.at_bad if scene.forward else ()
    if not entries:
        return ()
    entry = max(entries, key=lambda e: e.zero)
    return (f"`{entry.name}` lies between {entry.minimum:.3g} and {entry.maximum:.3g} there",)


@rule("IEEE 754-2019 binary16: the smallest positive number is 6e-8, so 1e-8 becomes 0")
def epsilon_lost_in_gradient(scene: Scene) -> Account | None:
    """A root's gradient divides by zero since its epsilon is 0 in half precision."""
    entry = _forward_at(scene, "self")
    if scene.forward is None or entry is None or not _all(entry.zero, entry):
        return None
    lost = lost_epsilon(scene, scene.forward, None)
    if lost is None:
        return None
    return Account(
        f"The epsilon {lost.value:g} that should keep {scene.forward.op} away from 0 is itself 0 "
        f"in {lost.dtype}, so its gradient divides by zero.",
        (f"the input is 0 at all {entry.total:,} bad positions", lost.where),
    )


@rule(_DERIVATIVES + ": d sqrt(x) = g / (2 sqrt(x))")
def sqrt_gradient_at_zero(scene: Scene) -> Account | None:
    """The derivative of a square root is infinite at 0."""
    return _zero_input(scene, "SqrtBackward", "the derivative of sqrt is infinite at 0")


@rule(_DERIVATIVES + ": d log(x) = g / x")
def log_gradient_at_zero(scene: Scene) -> Account | None:
    """The derivative of a logarithm is infinite at 0."""
    for node in ("LogBackward", "Log2Backward", "Log10Backward"):
        account = _zero_input(scene, node, "the derivative of log is infinite at 0")
        if account:
            return account
    return None


def _zero_input(scene: Scene, node: str, why: str) -> Account | None:
    entry = _forward_at(scene, "self")
    if scene.node != node or entry is None or not _all(entry.zero, entry):
        return None
    return Account(
        f"{why[0].upper()}{why[1:]}, and the input is exactly 0 at all {entry.total:,} bad "
        "positions.",
        ruled_out=("not an overflow of the forward: it was finite",),
    )


@rule(_DERIVATIVES + ": d (x / y) = g / y and -g x / y^2")
def division_gradient_at_zero(scene: Scene) -> Account | None:
    """The derivative of a quotient is infinite where the divisor is 0."""
    entry = _forward_at(scene, "other")
    if scene.node != "DivBackward" or entry is None or not _all(entry.zero, entry):
        return None
    return Account(
        f"The divisor is exactly 0 at all {entry.total:,} bad positions; the derivative of a "
        "quotient divides by it once more."
    )


@rule(_DERIVATIVES + ": d x^p = g p x^(p - 1)")
def power_gradient_at_zero(scene: Scene) -> Account | None:
    """The derivative of a power below 1 is infinite at 0."""
    entry = _forward_at(scene, "self")
    if scene.node != "PowBackward" or entry is None or scene.forward is None:
        return None
    exponent = scene.forward.scalars.get("exponent")
    below = isinstance(exponent, int | float) and exponent < 1
    if not below or not _all(entry.zero, entry):
        return None
    return Account(
        f"The derivative of x^{exponent:g} is infinite at 0, and the input is exactly 0 at all "
        f"{entry.total:,} bad positions.",
    )


@rule(_DERIVATIVES + ": d acos(x) = -g / sqrt(1 - x^2), likewise asin; atanh: g / (1 - x^2)")
def arc_gradient_at_one(scene: Scene) -> Account | None:
    """The derivative of an arc function is infinite at 1 and -1."""
    entry = _forward_at(scene, "self")
    nodes = ("AcosBackward", "AsinBackward", "AcoshBackward", "AtanhBackward")
    if scene.node not in nodes or entry is None or not _all(entry.at_one, entry):
        return None
    return Account(
        f"The derivative of {scene.node.removesuffix('Backward').lower()} is infinite at 1 and "
        f"-1, and the input is exactly there at all {entry.total:,} bad positions.",
    )


@rule(_DERIVATIVES + ": d hypot(x, y) = g x / hypot(x, y)")
def hypot_gradient_at_zero(scene: Scene) -> Account | None:
    """The derivative of hypot is 0/0 at (0, 0); those of norm, abs and atan2 are guarded there."""
    one, other = _forward_at(scene, "self"), _forward_at(scene, "other")
    if scene.node != "HypotBackward" or one is None or other is None:
        return None
    if not (_all(one.zero, one) and _all(other.zero, other)):
        return None
    return Account(
        f"Both arguments of hypot are 0 at all {one.total:,} bad positions; its derivative "
        "divides by the result, which is 0 there.",
    )


@rule(_DEGENERATE)
def degenerate_eigenvalues(scene: Scene) -> Account | None:
    """Eigenvectors or singular vectors of equal values have no gradient."""
    if scene.forward is None or "gap" not in scene.forward.extras:
        return None
    if not scene.node.startswith(("LinalgEigh", "LinalgEig", "LinalgSvd")):
        return None
    gap = scene.forward.extras["gap"]
    if gap > DISTINCT:
        return None
    what = "singular values" if "Svd" in scene.node else "eigenvalues"
    return Account(
        f"Two {what} of the matrix are equal (relative distance {gap:.3g}); the gradient of "
        "their vectors divides by that distance.",
        ruled_out=("not the matrix: it is finite",),
    )


@rule("torch.linalg.qr and cholesky documentation: the gradient needs a matrix of full rank")
def singular_factor(scene: Scene) -> Account | None:
    """The gradient of a QR or Cholesky factor divides by a diagonal entry that is 0."""
    if scene.forward is None or scene.finding.phase != "backward":
        return None
    smallest = scene.forward.extras.get("diagonal", scene.forward.extras.get("smallest"))
    if smallest is None or smallest > DISTINCT:
        return None
    return Account(
        f"The matrix of {scene.forward.op} is singular (smallest diagonal entry or singular "
        f"value {smallest:.3g}, relative to the largest); the gradient divides by it.",
        ruled_out=("not the matrix: it is finite",),
    )


@rule("torch.amp documentation, gradient scaling: gradients of half operations are half as well")
def half_gradient_overflow(scene: Scene) -> Account | None:
    """A gradient does not fit into half precision."""
    evidence = scene.main
    if evidence is None or scene.finding.phase != "backward" or scene.finding.node is None:
        return None
    if not is_half(evidence) or not overflowed(evidence):
        return None
    scale = loss_factor(scene)
    told = (f"the loss was multiplied by {scale:g} before backward",) if scale else ()
    return Account(
        f"The gradient in {scene.finding.node} does not fit into half precision.",
        (*says_overflow(evidence), *told),
        (NOT_SINGULAR,),
    )


def loss_factor(scene: Scene) -> float | None:
    """The largest constant of at least 1,000 that a scalar was multiplied with, if any."""
    factors = [
        abs(float(value))
        for op in scene.lineage.ops.values()
        if op.packet in ("aten.mul", "aten.mul_") and op.place is None
        for value in op.scalars.values()
        if isinstance(value, int | float)
    ]
    largest = max(factors, default=0.0)
    return largest if largest >= 1000 else None


@rule(IEEE + "; Pascanu et al. 2013 on gradients that grow with depth and time")
def gradient_explosion(scene: Scene) -> Account | None:
    """Gradients grow through depth or time until float32 cannot hold them."""
    evidence = scene.main
    if evidence is None or scene.finding.phase != "backward" or scene.finding.node is None:
        return None
    if is_half(evidence) or not overflowed(evidence) or not finite_in_double(evidence):
        return None
    return Account(
        f"The gradient in {scene.finding.node} has grown beyond float32.",
        says_overflow(evidence),
        (NOT_SINGULAR,),
    )
