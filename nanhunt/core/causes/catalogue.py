"""What a rule is: it reads the evidence of a failing step and gives an account, or nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from nanhunt.core.causes.scene import Scene
from nanhunt.core.observe.evidence import OpEvidence
from nanhunt.core.tensors.dtypes import HALVES, dtype_name, largest_number

NOT_ESTABLISHED = "not_established"


class Account(NamedTuple):
    """A rule's answer: the explanation, the evidence for it, and what was ruled out.

    Attributes:
        sentence: the cause in one sentence.
        evidence: what supports it.
        ruled_out: alternatives, and what rules them out.
    """

    sentence: str
    evidence: tuple[str, ...] = ()
    ruled_out: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule of the catalogue of causes.

    Attributes:
        id: stable; it stands in reports as `Finding.cause`.
        meaning: the cause in general, one line.
        source: where the rule and its numbers come from.
        judge: the rule itself.
    """

    id: str
    meaning: str
    source: str
    judge: Callable[[Scene], Account | None]


def rule(source: str) -> Callable[[Callable[[Scene], Account | None]], Rule]:
    """Makes a function a rule; its name is the id, its docstring's first line the meaning."""

    def enter(judge: Callable[[Scene], Account | None]) -> Rule:
        meaning = (judge.__doc__ or "").strip().splitlines()[0]
        return Rule(judge.__name__, meaning, source, judge)

    return enter


IEEE = "IEEE 754-2019, table 3.5: largest finite numbers of binary16 and binary32"


def overflowed(evidence: OpEvidence | None) -> bool:
    """Whether double precision gives a finite result that the dtype cannot hold."""
    if evidence is None or evidence.double is None or evidence.dtype is None:
        return False
    double = evidence.double
    return double.still_bad == 0 and double.absmax >= largest_number(evidence.dtype)


def finite_in_double(evidence: OpEvidence) -> bool:
    """Whether double precision gives finite results wherever they are bad."""
    return evidence.double is not None and evidence.double.still_bad == 0


def singular(evidence: OpEvidence | None) -> bool:
    """Whether double precision does not help, as far as it could be asked."""
    if evidence is None or not evidence.at_bad:
        return False
    double = evidence.double
    return double is None or double.still_bad == double.total


def is_half(evidence: OpEvidence) -> bool:
    """Whether an operation's result is of a half-precision dtype."""
    return evidence.dtype in HALVES


def says_overflow(evidence: OpEvidence) -> tuple[str, ...]:
    """The evidence for an overflow."""
    assert evidence.double is not None
    assert evidence.dtype is not None
    return (
        f"in float64 the same inputs give up to {evidence.double.absmax:.4g}; "
        f"{dtype_name(evidence.dtype)} ends at {largest_number(evidence.dtype):.5g}",
    )


NOT_SINGULAR = "not a singular point of the operation: in float64 the result is finite"
NOT_RANGE = "not a matter of precision: in float64 the result is not finite either"


def exponent_limit(dtype: torch.dtype) -> float:
    """The argument from which on `exp` overflows."""
    return math.log(largest_number(dtype))
