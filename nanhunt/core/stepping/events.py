"""Where inside a step it can stop, and the tensors that can be looked at there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from nanhunt.core.tensors.stats import plain_tensors

BEFORE, AFTER, BACKWARD = "before", "after", "backward"


@dataclasses.dataclass(eq=False)
class ModuleCall:
    """One call of a module in a step.

    Attributes:
        path: the module's qualified name; an empty string is the root.
        number: the n-th call of this module, or `"recompute"`.
        kind: the module's class.
        parent: the call it was made in, if any.
    """

    path: str
    number: int | str
    kind: str
    parent: ModuleCall | None

    def inside(self, other: ModuleCall | None) -> bool:
        """Whether this call was made, at any depth, in the other one."""
        call = self.parent
        while call is not None:
            if call is other:
                return True
            call = call.parent
        return False

    def __str__(self) -> str:
        name = f"{self.path or 'the model'} ({self.kind})"
        return name if self.number == 1 else f"{name}, call {self.number}"


class Here:
    """Where a step is paused: the live module and its tensors, until the step goes on.

    Changing them in place changes the training.

    Attributes:
        step: 0-based.
        phase: `"before"` the module runs, `"after"` it has run, or `"backward"`: the gradient
            of its output is known.
        path, call, kind: the module's qualified name, the n-th call, its class.
        module: the module itself.
        inputs: the call's arguments `(args, kwargs)`; None after it has run.
        output: what the module returned; None before.
        gradient: the gradient of its output, in the phase backward.
    """

    def __init__(
        self, step: int, phase: str, call: ModuleCall, module: nn.Module | None, held: Any
    ) -> None:
        self.step = step
        self.phase = phase
        self.path, self.call, self.kind = call.path, call.number, call.kind
        self.module = module
        self.inputs = held if phase == BEFORE else None
        self.output = held if phase == AFTER else None
        self.gradient = held if phase == BACKWARD else None
        self._frame = call

    @property
    def frame(self) -> ModuleCall:
        """The call that this belongs to."""
        return self._frame

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The floating-point and complex tensors that can be looked at here."""
        held = (self.inputs, self.output, self.gradient)
        return [t for t in plain_tensors(held) if t.is_floating_point() or t.is_complex()]

    def let_go(self) -> None:
        """Drops every reference: the step goes on."""
        self.module = self.inputs = self.output = self.gradient = None

    def __str__(self) -> str:
        where = {
            BEFORE: "before",
            AFTER: "after",
            BACKWARD: "backward, gradient of the output of",
        }[self.phase]
        return f"step {self.step}, {where} {self._frame}"

    def __repr__(self) -> str:
        return f"<{self}>"
