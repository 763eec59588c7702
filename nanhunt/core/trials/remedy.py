"""What a remedy is, and the ways in which one is made."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch

from nanhunt.core.causes.scene import Scene
from nanhunt.core.program.target import Target
from nanhunt.core.program.torch_calls import Call, Site
from nanhunt.core.tensors.dtypes import HALVES
from nanhunt.core.trials.patches import PatchedCalls, Rewrite, changed_argument
from nanhunt.core.trials.snippets import Edit, expression_of, replaced

# How much a remedy takes into its hands, least first.
# A wider dtype changes no value that was right; a clamp changes values that are in use.
ONE_ARGUMENT, WIDER_CALL, ONE_CALL, ONE_MODULE, STATE, UPDATES, WHOLE_STEP, BATCH = range(8)


class Scope(contextlib.ExitStack):
    """Active while the step runs with a remedy; `applied` counts what it changed."""

    def __init__(self) -> None:
        super().__init__()
        self.patch: PatchedCalls | None = None

    @property
    def applied(self) -> bool:
        """Whether the remedy met what it is meant for."""
        return self.patch is None or self.patch.applied > 0


@dataclasses.dataclass(frozen=True)
class Remedy:
    """One change to the step.

    Attributes:
        title: what is changed, in a few words.
        invasiveness: see the constants above.
        enter: makes the change after the state has been put back to the start; what it
            pushes on the scope is undone after the step.
        edit: the change as code, asked after the step has run with it.
        from_previous: the change is in force from the step before on.
        may_idle: there may be nothing in the step to learn from: no target, no row that counts.
    """

    title: str
    invasiveness: int
    enter: Callable[[Scope], None]
    edit: Callable[[Scope], Edit | None] = lambda _: None
    from_previous: bool = False
    may_idle: bool = False

    @property
    def only_widens(self) -> bool:
        """Whether it computes the same in a wider dtype: no value that was right is changed."""
        return self.invasiveness in (WIDER_CALL, ONE_MODULE, WHOLE_STEP)


def of_calls(
    target: Target,
    title: str,
    invasiveness: int,
    applies: Callable[[Call, str | None], bool],
    rewrite: Rewrite,
    edit: Callable[[Scope], Edit | None] = lambda _: None,
) -> Remedy:
    """A remedy that rewrites calls of torch functions."""

    def enter(scope: Scope) -> None:
        scope.patch = PatchedCalls(target, applies, rewrite)
        scope.enter_context(scope.patch)

    return Remedy(title, invasiveness, enter, edit)


def at(site: Site | None) -> Callable[[Call, str | None], bool]:
    """Applies to the calls made from one place in the program."""
    return lambda call, _: call.site == site


def nudge(
    target: Target,
    call: Call | None,
    position: int,
    title: str,
    change: Callable[[Any], Any],
    written: Callable[[str], str],
    invasiveness: int = ONE_ARGUMENT,
) -> Remedy | None:
    """A remedy that changes one argument of one call.

    Args:
        target: the model.
        call: the call.
        position: which argument, the receiver of a method being the first.
        title: what is changed.
        change: the change, for the value.
        written: the change, for the expression.
        invasiveness: see the constants above.
    """
    if call is None or call.site is None:
        return None
    expression = expression_of(call)

    def edit(scope: Scope) -> Edit | None:
        if expression is None or scope.patch is None or position in scope.patch.numbers:
            return None  # a number of the program's own has no methods
        return replaced(expression, expression.with_arguments({position: written}))

    rewrite = changed_argument(position, change)
    return of_calls(target, title, invasiveness, at(call.site), rewrite, edit)


def function_name(call: Call | None) -> str:
    """The name of a call's function without its path, e.g. `softmax`."""
    return getattr(call.function, "__name__", "") if call is not None else ""


def call_to_blame(scene: Scene) -> Call | None:
    """The call above autograd that made the bad value, or whose backward did."""
    if scene.finding.phase == "backward" and scene.forward is None:
        return None
    return scene.culprit.call if scene.culprit is not None else None


def epsilon_at_one(scene: Scene) -> float:
    """A small number that 1 can be told from 1 less it, in the dtype of the operation."""
    dtype = scene.culprit.dtype if scene.culprit is not None else None
    if dtype is None or not dtype.is_floating_point:
        return safe_epsilon(scene)
    return max(safe_epsilon(scene), torch.finfo(dtype).eps)


def safe_epsilon(scene: Scene) -> float:
    """A small number that half precision still tells from 0, if the operation uses that.

    Where all good values of the operand are small themselves it is as much below their largest as
    it is below 1 otherwise; but never so small that the square of its inverse overflows.
    """
    dtype = scene.culprit.dtype if scene.culprit is not None else None
    usual = 1e-3 if dtype in HALVES else 1e-6
    largest = _largest_good(scene)
    if dtype is None or not dtype.is_floating_point or largest is None or largest > 1e3 * usual:
        return usual
    scaled = math.floor(math.log10(largest)) + round(math.log10(usual))
    lowest = math.ceil(math.log10(torch.finfo(dtype).tiny) / 2)
    return min(usual, float(f"1e{max(scaled, lowest)}"))


def _largest_good(scene: Scene) -> float | None:
    """The largest magnitude in the operand that is 0 somewhere, a divisor first."""
    inputs = scene.culprit.inputs if scene.culprit is not None else ()
    operands = [stats for stats in inputs if stats.zeros and stats.absmax]
    operands.sort(key=lambda stats: stats.name != "other")
    return operands[0].absmax if operands else None
