"""Remedies that keep an operation away from its singular point: epsilon, clamp, a safe `where`."""

from __future__ import annotations

import ast
import inspect
import math
from typing import Any

import torch
from torch import Tensor

from nanhunt.core.causes.catalogue import exponent_limit
from nanhunt.core.causes.epsilon import lost_epsilon
from nanhunt.core.causes.scene import Scene
from nanhunt.core.program.target import Target
from nanhunt.core.program.torch_calls import Call
from nanhunt.core.trials.remedy import (
    ONE_ARGUMENT,
    ONE_CALL,
    Remedy,
    Scope,
    at,
    call_to_blame,
    epsilon_at_one,
    function_name,
    nudge,
    of_calls,
    safe_epsilon,
)
from nanhunt.core.trials.snippets import Edit, code, expression_of, replaced

# Which argument of which torch function is the divisor.
DIVISORS = {
    **dict.fromkeys(("div", "div_", "divide", "true_divide", "__truediv__", "__itruediv__"), 1),
    **dict.fromkeys(("__rtruediv__", "__rdiv__", "reciprocal", "reciprocal_", "rsqrt"), 0),
}
_BOUNDED = ("acos", "asin", "arccos", "arcsin", "atanh", "arctanh", "erfinv")
_FIRST = ("log", "log2", "log10", "sqrt", "sqrt_", "log_", "pow", "__pow__", "rsqrt")
_EXPS = ("exp", "exp_", "expm1", "exp2", "sinh", "cosh")


def clamp_input(scene: Scene, target: Target) -> Remedy | None:
    """`f(x.clamp(min=eps))` for functions that are singular at 0."""
    call, epsilon = call_to_blame(scene), safe_epsilon(scene)
    if function_name(call) not in _FIRST:
        return None
    negative = scene.finding.cause.endswith("of_negative")
    return nudge(
        target,
        call,
        0,
        f"clamp the input of `{function_name(call)}` from below at {epsilon:g}",
        lambda x: x.clamp(min=epsilon),
        lambda text: f"{text}.clamp(min={epsilon:g})",
        ONE_CALL if negative else ONE_ARGUMENT,
    )


def add_epsilon(scene: Scene, target: Target) -> Remedy | None:
    """`f(x + eps)` for functions that are singular at 0 and get no negative input."""
    call, epsilon = call_to_blame(scene), safe_epsilon(scene)
    if function_name(call) not in _FIRST:
        return None
    return nudge(
        target,
        call,
        0,
        f"add {epsilon:g} to the input of `{function_name(call)}`",
        lambda x: x + epsilon,
        lambda text: f"{text} + {epsilon:g}",
    )


def safe_divisor(scene: Scene, target: Target) -> Remedy | None:
    """A divisor of 0 replaced by a small number."""
    call, epsilon = call_to_blame(scene), safe_epsilon(scene)
    position = DIVISORS.get(function_name(call))
    if position is None:
        return None

    def away(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x or epsilon
        return torch.where(x == 0, torch.full_like(x, epsilon), x)

    return nudge(
        target,
        call,
        position,
        f"divide by {epsilon:g} where the divisor is 0",
        away,
        lambda text: f"{text}.masked_fill({text} == 0, {epsilon:g})",
    )


def epsilon_under_root(scene: Scene, target: Target) -> Remedy | None:
    """`x / (v + eps).sqrt()`: the divisor's root is kept away from 0, for its backward as well."""
    if scene.main is None:
        return None
    epsilon = safe_epsilon(scene)
    for made, _ in scene.straight_up(scene.main, "other"):
        if made.packet == "aten.sqrt" and function_name(made.call) in ("sqrt", "sqrt_"):
            return nudge(
                target,
                made.call,
                0,
                f"add {epsilon:g} under the divisor's root",
                lambda x: x + epsilon,
                lambda text: f"{text} + {epsilon:g}",
            )
    return None


def clamp_divisor(scene: Scene, target: Target) -> Remedy | None:
    """A divisor kept at or above a small number; for divisors that are never negative."""
    call, epsilon = call_to_blame(scene), safe_epsilon(scene)
    position = DIVISORS.get(function_name(call))
    if position is None:
        return None
    return nudge(
        target,
        call,
        position,
        f"clamp the divisor from below at {epsilon:g}",
        lambda x: x.clamp(min=epsilon) if isinstance(x, Tensor) else max(x, epsilon),
        lambda text: f"{text}.clamp(min={epsilon:g})",
    )


def larger_epsilon(scene: Scene, target: Target) -> Remedy | None:
    """The epsilon that is lost in half precision, large enough to survive."""
    evidence = scene.culprit
    lost = lost_epsilon(scene, evidence, None) if evidence is not None else None
    if lost is None or lost.call is None or lost.call.site is None:
        return None
    call, value, old = lost.call, safe_epsilon(scene), lost.value

    def larger(number: Any) -> Any:
        return value if number == old else number

    def rewrite(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if _takes_epsilon(func):
            bound = inspect.signature(func).bind(*args, **kwargs)
            bound.arguments["eps"] = value
            return func(*bound.args, **bound.kwargs)
        return func(
            *(larger(a) if isinstance(a, float) else a for a in args),
            **{k: larger(v) if isinstance(v, float) else v for k, v in kwargs.items()},
        )

    def edit(_: Scope) -> Edit | None:
        expression = expression_of(call)
        if expression is None:
            return None

        constants = (n for n in ast.walk(expression.node) if isinstance(n, ast.Constant))
        found = next((n for n in constants if n.value == old), None)
        if found is None:
            return _epsilon_elsewhere(call, value, expression.text[1:-1])
        return replaced(expression, expression.with_part(found, f"{value:g}"))

    title = f"epsilon {value:g} instead of {lost.value:g}"
    return of_calls(target, title, ONE_ARGUMENT, at(call.site), rewrite, edit)


def _takes_epsilon(func: Any) -> bool:
    return inspect.isfunction(func) and "eps" in inspect.signature(func).parameters


def _epsilon_elsewhere(call: Call, value: float, text: str) -> Edit | None:
    """The epsilon does not stand in the line: it is a default of the function or a module's."""
    assert call.site is not None
    expression = expression_of(call)
    if call.site.module is not None:
        return code([f'model.get_submodule("{call.site.module}").eps = {value:g}'])
    if _takes_epsilon(call.function) and text.endswith(")"):
        return replaced(expression, f"{text[:-1]}, eps={value:g})")
    return None


def clamp_to_domain(scene: Scene, target: Target) -> Remedy | None:
    """`acos(x.clamp(-1 + eps, 1 - eps))` and its like."""
    call = call_to_blame(scene)
    if function_name(call) not in _BOUNDED:
        return None
    bound = 1 - epsilon_at_one(scene)
    return nudge(
        target,
        call,
        0,
        f"clamp the input of `{function_name(call)}` to ±{bound:g}",
        lambda x: x.clamp(-bound, bound),
        lambda text: f"{text}.clamp({-bound!r}, {bound!r})",
    )


def away_from_origin(scene: Scene, target: Target) -> Remedy | None:
    """`hypot(x, y + eps)`."""
    call, epsilon = call_to_blame(scene), safe_epsilon(scene)
    if function_name(call) != "hypot":
        return None
    return nudge(
        target,
        call,
        1,
        f"add {epsilon:g} to the second argument of `hypot`",
        lambda x: x + epsilon,
        lambda text: f"{text} + {epsilon:g}",
    )


def clamp_exponent(scene: Scene, target: Target) -> list[Remedy]:
    """`exp(x.clamp(max=...))`."""
    call = call_to_blame(scene)
    if function_name(call) not in _EXPS or scene.culprit is None or scene.culprit.dtype is None:
        return []
    highest = exponent_limit(scene.culprit.dtype)
    # Just below the limit, and where its square still fits.
    bounds = (math.floor(highest) - 1.0, math.floor(highest / 2) - 1.0)
    remedies = [_clamped_above(target, call, bound) for bound in bounds]
    return [remedy for remedy in remedies if remedy is not None]


def _clamped_above(target: Target, call: Call | None, bound: float) -> Remedy | None:
    return nudge(
        target,
        call,
        0,
        f"clamp the input of `{function_name(call)}` from above at {bound:g}",
        lambda x: x.clamp(max=bound),
        lambda text: f"{text}.clamp(max={bound:g})",
        ONE_CALL,
    )


def safe_where(scene: Scene, target: Target) -> Remedy | None:
    """A second `where` in front: where the result is not used, the input is harmless."""
    selection, call = scene.selection, call_to_blame(scene)
    position = DIVISORS.get(function_name(call), 0)
    if selection is None or call is None or call.site is None:
        return None
    keeps = selection.keeps
    condition = _condition_text(selection.call, call)

    def harmless(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return torch.where(keeps, x, torch.ones_like(x))

    remedy = nudge(
        target,
        call,
        position,
        "a second `where` at the input: 1 where the result is not used",
        harmless,
        lambda text: f"torch.where({condition}, {text}, torch.ones_like({text}))",
    )
    if remedy is None or condition:
        return remedy
    return Remedy(remedy.title, remedy.invasiveness, remedy.enter)


def _condition_text(where: Call | None, call: Call) -> str:
    """The condition as the user wrote it, if it can be read where the operation stands."""
    expression = expression_of(where)
    if expression is None or call.site is None or expression.site.code is not call.site.code:
        return ""
    name = function_name(where)
    node = expression.argument(1 if name.startswith("masked_fill") else 0)
    if node is None:
        return ""
    text = expression.written(node)
    if name.startswith("masked_fill"):
        return f"~({text})"
    return text


def distinct_values(scene: Scene, target: Target) -> Remedy | None:
    """A matrix moved apart a little: distinct eigenvalues, full rank."""
    call = call_to_blame(scene)
    name = function_name(call)
    if not any(part in name for part in ("eig", "svd", "qr", "cholesky")):
        return None

    def apart(matrix: Tensor) -> Tensor:
        steps = torch.linspace(0.5, 1.5, min(matrix.shape[-2:]), device=matrix.device)
        size = torch.zeros_like(matrix)
        size.diagonal(dim1=-2, dim2=-1).copy_(1e-3 * steps)
        return matrix + size

    return nudge(
        target,
        call,
        0,
        f"add a small ascending diagonal to the matrix of `{name}`",
        apart,
        lambda text: f"{text} + torch.diag(torch.linspace(5e-4, 1.5e-3, {text}.shape[-1]))",
    )
