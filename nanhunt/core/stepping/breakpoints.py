"""Breakpoints: which modules, in which phase, and on what condition a step stops."""

from __future__ import annotations

import ast
import difflib
import fnmatch
import operator
import re
from collections.abc import Callable
from typing import Any

import torch

from nanhunt.core.stepping.events import AFTER, BACKWARD, BEFORE, Here
from nanhunt.core.tensors import dtypes
from nanhunt.core.tensors.binning import histogram
from nanhunt.errors import UsageError

Condition = str | Callable[[Here], Any] | None

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_PHASES = {"forward": (BEFORE, AFTER), "backward": (BACKWARD,), "both": (BEFORE, AFTER, BACKWARD)}


class _Seen:
    """What a condition can name, taken from the tensors at one place when it is asked for."""

    def __init__(self, here: Here) -> None:
        self._here = here
        self._kept: dict[str, Any] = {}

    NAMES = (
        "nan", "inf", "zeros", "underflow", "absmax", "complex_half", "dtype", "step", "call"
    )  # fmt: skip

    def __getitem__(self, name: str) -> Any:
        if name not in self._kept:
            self._kept[name] = self._value(name)
        return self._kept[name]

    def _value(self, name: str) -> Any:
        if name in ("step", "call"):
            return getattr(self._here, name)
        kinds = [tensor.dtype for tensor in self._here.tensors]
        if name == "complex_half":
            return torch.complex32 in kinds
        if name == "dtype":
            return _AnyOf(dtypes.dtype_name(kind) for kind in kinds)
        counted = [found for found in map(histogram, self._here.tensors) if found.numel]
        values = {
            "nan": sum(found.nan for found in counted),
            "inf": sum(found.posinf + found.neginf for found in counted),
            "zeros": max((found.zero_share for found in counted), default=0.0),
            "underflow": max((found.underflow for found in counted), default=0.0),
            "absmax": max((found.absmax or 0.0 for found in counted), default=0.0),
        }
        self._kept.update(values)
        return values[name]


class _AnyOf(set[str]):
    """Equal to a name when any of its names is; unequal when none is."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return other in self

    def __ne__(self, other: object) -> bool:
        return other not in self


class Breakpoint:
    """One breakpoint.

    Args:
        where: a module's qualified name, its class, or a pattern of either with `*` and `?`.
        condition: None to stop always; a predicate that is given the `Here`; or a text such as
            `nan`, `absmax > 1e4`, `underflow > 10%`, `dtype == float16`, `inf and step > 3`.
        phase: `"forward"`, `"backward"` or `"both"`.

    Raises:
        UsageError: the condition cannot be read, or there is no such phase.

    Without a condition the step stops before the module runs; with one, it is asked of the
    inputs before and of the output after. `underflow` is the share of subnormal numbers in
    those that are not zero, `zeros` the share of zeros, `nan` and `inf` are counts, `absmax` is
    the largest finite magnitude; with several tensors the largest value counts.

    Attributes:
        error: what the condition raised when it was asked last, if anything.
    """

    def __init__(self, where: str, condition: Condition = None, phase: str = "forward") -> None:
        if phase not in _PHASES:
            raise UsageError(f"phase must be one of {', '.join(_PHASES)}, not {phase!r}")
        self.where = where
        self.condition = condition
        self.phase = phase
        self.error = ""
        self._test = _parsed(condition) if isinstance(condition, str) else condition
        self._pattern = re.compile(fnmatch.translate(where))

    def matches(self, path: str, kind: str) -> bool:
        """Whether it stands at modules of this name or class."""
        return bool(self._pattern.match(path) or self._pattern.match(kind))

    def fires(self, here: Here) -> bool:
        """Whether the step is to stop here. What a predicate raises counts as yes: see `error`."""
        if here.phase not in _PHASES[self.phase] or not self.matches(here.path, here.kind):
            return False
        if self._test is None:
            return here.phase != AFTER
        self.error = ""
        try:
            return bool(self._test(here))
        except Exception as error:  # noqa: BLE001  the user's predicate
            self.error = f"{type(error).__name__}: {error}"
            return True

    def __str__(self) -> str:
        condition = self.condition
        if callable(condition):
            condition = getattr(condition, "__name__", "a predicate")
        phase = "" if self.phase == "forward" else f" [{self.phase}]"
        return f"{self.where or 'the model'}{phase}" + (f" if {condition}" if condition else "")

    def __repr__(self) -> str:
        return f"<Breakpoint {self}>"


def _parsed(text: str) -> Callable[[Here], bool]:
    """Reads a condition; only names, numbers, comparisons, `and`, `or` and `not` are known."""
    plain = re.sub(r"([\d.]+)\s*%", lambda found: str(float(found[1]) / 100), text)
    try:
        tree = ast.parse(plain.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise UsageError(f"{text!r} cannot be read as a condition; {_help()}") from None
    _check(tree, text)
    return lambda here: bool(_evaluate(tree, _Seen(here)))


def _help() -> str:
    return (
        f"conditions are made of {', '.join(_Seen.NAMES)}, numbers, comparisons, and, or, not: "
        "'nan', 'absmax > 1e4', 'underflow > 10%', 'dtype == float16'"
    )


def _check(node: ast.AST, text: str) -> None:
    if isinstance(node, ast.Name) and node.id not in (*_Seen.NAMES, *dtypes.NAMES):
        close = difflib.get_close_matches(node.id, [*_Seen.NAMES, *dtypes.NAMES], 1)
        hint = f"did you mean {close[0]}?" if close else _help()
        raise UsageError(f"{text!r}: there is no {node.id!r} to ask for; {hint}")
    number = isinstance(node, ast.Constant) and isinstance(node.value, int | float | str)
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not)
    known = (ast.Name, ast.Compare, ast.BoolOp, ast.boolop, ast.unaryop, ast.Load)
    compares = isinstance(node, ast.cmpop) and type(node) in _COMPARISONS
    if not (number or negative or compares or isinstance(node, known)):
        raise UsageError(f"{text!r} cannot be read as a condition; {_help()}")
    for inner in ast.iter_child_nodes(node):
        _check(inner, text)


def _evaluate(node: ast.AST, seen: _Seen) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return seen[node.id] if node.id in _Seen.NAMES else node.id
    if isinstance(node, ast.UnaryOp):
        value = _evaluate(node.operand, seen)
        return not value if isinstance(node.op, ast.Not) else -value
    if isinstance(node, ast.BoolOp):
        together = all if isinstance(node.op, ast.And) else any
        return together(_evaluate(value, seen) for value in node.values)
    assert isinstance(node, ast.Compare)
    left = _evaluate(node.left, seen)
    for test, right in zip(node.ops, node.comparators, strict=True):
        value = _evaluate(right, seen)
        if not _COMPARISONS[type(test)](left, value):
            return False
        left = value
    return True
