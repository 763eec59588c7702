"""Finds small constants that are 0 in the dtype they were added in."""

from __future__ import annotations

from typing import NamedTuple

import torch

from nanhunt.core.causes.scene import Scene, line_of
from nanhunt.core.observe.evidence import OpEvidence
from nanhunt.core.program.torch_calls import Call
from nanhunt.core.tensors.dtypes import HALVES, dtype_name

_ADDS_EPSILON = frozenset(
    f"aten.{name}"
    for name in ("add", "add_", "clamp", "clamp_", "clamp_min", "clamp_min_", "maximum", "rsub")
)


class LostEpsilon(NamedTuple):
    """A small constant that is 0 in the dtype it was added in."""

    value: float
    dtype: str
    where: str
    call: Call | None


def lost_epsilon(scene: Scene, evidence: OpEvidence, argument: str | None) -> LostEpsilon | None:
    """Looks for `+ eps` or `clamp(min=eps)` in half precision right before an operand.

    Only operations that leave a 0 a 0 (a root, a cast, a change of shape) may lie between.
    """
    for made, operand in scene.straight_up(evidence, argument):
        if operand.dtype not in HALVES or made.packet not in _ADDS_EPSILON:
            continue
        for value in made.scalars.values():
            small = isinstance(value, float) and 0 < value < 1e-3
            if small and float(torch.tensor(value, dtype=operand.dtype)) == 0:
                where = f"the epsilon is added{line_of(made)}"
                return LostEpsilon(float(value), dtype_name(operand.dtype), where, made.call)
    return None
