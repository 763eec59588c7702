"""Remedies for reductions over nothing: fully masked rows, empty means, a single element."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nanhunt.core.causes.scene import Scene
from nanhunt.core.program.target import Target
from nanhunt.core.program.torch_calls import Call
from nanhunt.core.trials.nudges import DIVISORS
from nanhunt.core.trials.remedy import (
    ONE_ARGUMENT,
    ONE_CALL,
    Remedy,
    Scope,
    at,
    call_to_blame,
    function_name,
    nudge,
    of_calls,
)
from nanhunt.core.trials.snippets import Edit, expression_of, replaced

_SOFTMAXES = ("softmax", "log_softmax")


def masked_rows(scene: Scene, target: Target) -> Remedy | None:
    """Fully masked rows of a softmax become zeros before it, and 0 after it."""
    call = call_to_blame(scene)
    name = function_name(call)
    if call is None or call.site is None:
        return None
    if name in ("scaled_dot_product_attention", "multi_head_attention_forward"):
        return _unmasked_queries(target, call)
    if name not in _SOFTMAXES:
        return None

    def rewrite(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = args[0] if args else kwargs.pop("input")
        dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
        masked = (x == -math.inf).all(dim, keepdim=True)
        result = func(x.masked_fill(masked, 0.0), *args[1:], **kwargs)
        return result.masked_fill(masked, 0.0)

    def edit(_: Scope) -> Edit | None:
        expression = expression_of(call)
        if expression is None or expression.argument(0) is None:
            return None
        node, dim_node = expression.argument(0), expression.argument(1)
        assert node is not None
        rows = expression.written(node)
        rows = rows if rows.isidentifier() else f"({rows})"
        dim = expression.written(dim_node) if dim_node is not None else "-1"
        dead = f'({rows} == float("-inf")).all({dim}, keepdim=True)'
        filled = expression.with_arguments({0: lambda text: f"{text}.masked_fill({dead}, 0.0)"})
        return replaced(expression, f"{filled}.masked_fill({dead}, 0.0)" if filled else None)

    title = "rows that are masked completely give 0"
    return _idle(of_calls(target, title, ONE_CALL, at(call.site), rewrite, edit))


def _unmasked_queries(target: Target, call: Call) -> Remedy:
    def opened(mask: Any, inverted: bool = False) -> Any:
        if not isinstance(mask, Tensor):
            return mask
        if mask.dtype != torch.bool:
            return mask.masked_fill((mask == -math.inf).all(-1, keepdim=True), 0.0)
        if inverted:
            return mask & ~mask.all(-1, keepdim=True)
        return mask | ~mask.any(-1, keepdim=True)

    def edit(_: Scope) -> Edit | None:
        expression = expression_of(call)
        if expression is None or not isinstance(expression.node, ast.Call):
            return None
        masks = [k for k in expression.node.keywords if k.arg == "key_padding_mask"]
        if not masks:
            return None
        text = expression.written(masks[0].value)
        text = text if text.isidentifier() else f"({text})"
        return replaced(
            expression,
            expression.with_part(masks[0].value, f"{text} & ~{text}.all(-1, keepdim=True)"),
        )

    def rewrite(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is not functional.multi_head_attention_forward and len(args) > 3:
            args = (*args[:3], opened(args[3]), *args[4:])
        # With padding True means "leave out", in `scaled_dot_product_attention` "take".
        inverted = func is functional.multi_head_attention_forward
        for key in ("attn_mask", "key_padding_mask"):
            if isinstance(kwargs.get(key), Tensor):
                kwargs = {**kwargs, key: opened(kwargs[key], inverted)}
        return func(*args, **kwargs)

    title = "queries that are masked completely attend to everything"
    return of_calls(target, title, ONE_CALL, at(call.site), rewrite, edit)


def fewer_degrees(scene: Scene, target: Target) -> Remedy | None:
    """`std(..., correction=0)`: defined for one element."""
    call = call_to_blame(scene)
    if function_name(call) not in ("std", "var", "std_mean", "var_mean") or call is None:
        return None

    def rewrite(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kept = tuple(a for a in args if not isinstance(a, bool))
        others = {k: v for k, v in kwargs.items() if k != "unbiased"}
        return func(*kept, **{**others, "correction": 0})

    def edit(_: Scope) -> Edit | None:
        expression = expression_of(call)
        if expression is None:
            return None
        node = expression.node
        if not isinstance(node, ast.Call):
            return None
        inner = (
            expression.text[1:-2] + (", " if node.args or node.keywords else "") + "correction=0)"
        )
        return replaced(expression, inner)

    return of_calls(target, "correction=0", ONE_ARGUMENT, at(call.site), rewrite, edit)


def mean_or_zero(scene: Scene, target: Target) -> Remedy | None:
    """The mean over nothing as 0: a sum divided by at least 1."""
    call = call_to_blame(scene)
    name = function_name(call)
    if call is None or call.site is None or name not in ("mean", "cross_entropy", "nll_loss"):
        return None

    def rewrite(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "mean":
            return args[0].sum(*args[1:], **kwargs) / max(args[0].numel(), 1)
        bound = inspect.signature(func).bind(*args, **kwargs)
        bound.arguments["reduction"] = "sum"
        ignored = bound.arguments.get("ignore_index", -100)
        kept = (bound.arguments["target"] != ignored).sum().clamp(min=1)
        return func(*bound.args, **bound.kwargs) / kept

    def edit(_: Scope) -> Edit | None:
        expression = expression_of(call)
        first = expression.argument(0) if expression else None
        if expression is None or first is None or not isinstance(expression.node, ast.Call):
            return None
        if name == "mean":
            x = expression.written(first)
            return replaced(expression, f"({x}.sum() / max({x}.numel(), 1))")
        target_node = expression.argument(1)
        if target_node is None or not expression.names_function:
            return None
        text, wanted = expression.text[1:-1], expression.written(target_node)
        if "reduction" in text or "ignore_index" in text:
            return None
        total = f'{text[:-1]}, reduction="sum")'
        return replaced(expression, f"({total} / ({wanted} != -100).sum().clamp(min=1))")

    title = "the mean over nothing is 0"
    return _idle(of_calls(target, title, ONE_CALL, at(call.site), rewrite, edit))


def count_at_least_one(scene: Scene, target: Target) -> Remedy | None:
    """A count as divisor kept at or above 1."""
    call = call_to_blame(scene)
    position = DIVISORS.get(function_name(call))
    if position is None:
        return None
    made = nudge(
        target,
        call,
        position,
        "divide by at least 1",
        lambda x: x.clamp(min=1) if isinstance(x, Tensor) else max(x, 1),
        lambda text: f"{text}.clamp(min=1)",
    )
    return _idle(made) if made is not None else None


def _idle(remedy: Remedy) -> Remedy:
    """Where all is empty, no gradient is what there should be."""
    return dataclasses.replace(remedy, may_idle=True)
