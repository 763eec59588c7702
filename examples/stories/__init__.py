"""Five training runs that went wrong, as small programs, each also in a healthy setting."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Story:
    """A training program, ready to be run or hunted.

    Attributes:
        model: the module, or a dict of modules.
        step_fn: one training step; takes no argument.
        extras: what else a reader may want to look at (optimizers, scalers, an `evaluate`).
    """

    model: Any
    step_fn: Callable[[], Any]
    extras: dict[str, Any]
