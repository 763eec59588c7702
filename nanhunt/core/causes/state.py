"""Rules for causes from before the step: its batch, weights, statistics, optimizer state."""

from __future__ import annotations

from nanhunt.core.causes.catalogue import Account, rule
from nanhunt.core.causes.scene import Scene
from nanhunt.core.observe import op_table

_STATISTICS = ("running_mean", "running_var")


def _role(scene: Scene) -> str | None:
    return scene.outside.role if scene.outside else None


def _when(scene: Scene) -> str:
    return (
        "before the first step of this hunt"
        if scene.finding.step == 0
        else f"between the steps {scene.finding.step - 1} and {scene.finding.step}"
    )


@rule("torch.compiler.set_stance('force_eager') runs the same code without the compiler")
def compiler_only(scene: Scene) -> Account | None:
    """The step fails as compiled and is healthy when the same code runs eagerly."""
    if not scene.only_compiled:
        return None
    return Account(
        "The step fails as compiled by torch.compile and is healthy when the same code runs "
        "eagerly: the failure comes from the compiler.",
        ruled_out=("not the program itself: run eagerly on the same state it is healthy",),
    )


@rule("the values in the batch itself, before any operation has read them")
def bad_data(scene: Scene) -> Account | None:
    """The batch itself holds NaN or Inf."""
    if _role(scene) != "batch" or scene.outside is None:
        return None
    return Account(
        f"The data are bad: {scene.outside.name} holds values that are not finite.",
        ruled_out=("not made by the model: the value is in the batch before any operation",),
    )


@rule("BatchNorm's statistics are exponential moving averages: one NaN or Inf stays in for good")
def statistics_bad_before(scene: Scene) -> Account | None:
    """Normalisation statistics were bad before the step."""
    if _role(scene) != "buffer" or scene.outside is None:
        return None
    name = scene.outside.name
    if name.rpartition(".")[2] not in _STATISTICS:
        return None
    return Account(
        f"The statistic {name} was poisoned {_when(scene)}; a running average never loses a "
        "NaN or Inf again.",
        ruled_out=("not made in this step: the buffer was bad when the step began",),
    )


@rule("the parameter's own values at the start of the step")
def weights_bad_before(scene: Scene) -> Account | None:
    """A weight was bad before the step."""
    if _role(scene) != "parameter" or scene.outside is None:
        return None
    return Account(
        f"The weight {scene.outside.name} was not finite {_when(scene)}: the file it was loaded "
        "from, its initialisation or code outside the step made it so.",
        ruled_out=("not made by an update of this step: the weight was bad when it began",),
    )


@rule("the buffer's own values at the start of the step")
def buffer_bad_before(scene: Scene) -> Account | None:
    """A buffer was bad before the step, and the step reads it."""
    if _role(scene) != "buffer" or scene.outside is None:
        return None
    return Account(
        f"The buffer {scene.outside.name} was not finite {_when(scene)}, and the step reads it.",
        ruled_out=("not made in this step: the buffer was bad when the step began",),
    )


@rule("the optimizer's own state at the start of the step")
def optimizer_state_bad_before(scene: Scene) -> Account | None:
    """Optimizer state was bad before the step, as after a wrong restore."""
    if _role(scene) != "state" or scene.outside is None:
        return None
    return Account(
        f"{scene.outside.name} was not finite {_when(scene)}: it was restored so, or an earlier "
        "update left it behind.",
        ruled_out=("not made by this update: the state was bad when the step began",),
    )


@rule("the gradient's own values at the start of the step")
def gradient_left_bad(scene: Scene) -> Account | None:
    """A gradient from before the step was bad and had not been zeroed."""
    if _role(scene) != "gradient" or scene.outside is None:
        return None
    return Account(
        f"The {scene.outside.name} was not finite {_when(scene)} and was not zeroed before "
        "backward added to it.",
        ruled_out=("not made by this step's backward: the gradient was bad when it began",),
    )


@rule("torch.nn.BatchNorm: y = (x - mean) / sqrt(var + eps), so var must not be below -eps")
def negative_running_variance(scene: Scene) -> Account | None:
    """A batch norm in evaluation mode reads a negative running variance."""
    evidence = scene.main
    if evidence is None or evidence.packet not in op_table.EVALUATED_BATCH_NORMS:
        return None
    smallest = evidence.extras.get("smallest_variance", 0.0)
    if smallest + float(evidence.scalars.get("eps", 0.0)) >= 0 or not _nan(scene):
        return None
    return Account(
        f"The running variance of {scene.finding.module or 'this batch norm'} is negative "
        f"({smallest:.3g}); its square root is NaN.",
        ruled_out=("not the input: it is finite",),
    )


def _nan(scene: Scene) -> bool:
    return scene.finding.kind == "nan"


@rule("the constant is an argument of the operation")
def written_constant(scene: Scene) -> Account | None:
    """The program itself wrote NaN or Inf as a constant."""
    if scene.origin is None or scene.origin.source != "constant":
        return None
    return Account(
        f"The program writes {'NaN' if _nan(scene) else 'Inf'} as a constant here, and it is "
        "used as a value.",
        ruled_out=("not the result of arithmetic: the operation copies a number",),
    )


@rule("torch.empty documentation: uninitialised memory")
def uninitialised_memory(scene: Scene) -> Account | None:
    """Memory that nobody wrote was used as values."""
    if scene.origin is None or scene.origin.source != "memory":
        return None
    return Account(
        f"{scene.finding.op} returns memory that nobody has written, and it is used as values.",
        ruled_out=("not the result of arithmetic: nothing was computed into it",),
    )
