"""`nanhunt.validate_guard`: an evaluation that says why it has no valid batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.hunting.ledger import Ledger
from nanhunt.core.program.target import Target
from nanhunt.core.tensors.stats import plain_tensors, real_values
from nanhunt.core.watch.present import bad_state
from nanhunt.errors import PoisonedStateError, UsageError
from nanhunt.records.guard import Evaluation


def validate_guard(model: Any, *, on_poisoned: str = "refuse") -> EvaluationGuard:
    """Guards an evaluation inside a `with` block.

    Parameters and buffers are looked at before; the outputs of the model are reduced on their
    device and read once at the end. Nothing is changed.

    Args:
        model: a module, or a dict or sequence of modules.
        on_poisoned: `"refuse"` to raise when parameters or buffers are not finite already,
            `"warn"` to warn and go on.

    Returns:
        A context manager; its `result` says how many batches were valid, and why not.

    Raises:
        UsageError: `on_poisoned` is neither.
        PoisonedStateError: on entering, with the names.

    Example:
        >>> import torch, nanhunt
        >>> model = torch.nn.BatchNorm1d(2).eval()
        >>> with nanhunt.validate_guard(model) as guard:
        ...     out = model(torch.ones(1, 2))
        >>> print(guard.result)
        ✓ 1 of 1 calls of the model had finite outputs
    """
    if on_poisoned not in ("refuse", "warn"):
        raise UsageError(f"on_poisoned is {on_poisoned!r}; known are 'refuse' and 'warn'")
    return EvaluationGuard(Target(model), on_poisoned == "refuse")


class EvaluationGuard:
    """An active guard of an evaluation; made by `nanhunt.validate_guard`.

    Attributes:
        result: what the evaluation did; complete after the block.
    """

    def __init__(self, target: Target, refuses: bool) -> None:
        self._target = target
        self._refuses = refuses
        self._flags: list[tuple[Tensor, Tensor]] = []
        self._handles: list[Any] = []
        self._poisoned: tuple[str, ...] = ()
        self.result = Evaluation(0, 0, 0, ())

    def __enter__(self) -> EvaluationGuard:
        bad = bad_state(self._target, (), Ledger(self._target).acquitted)
        self._poisoned = tuple(str(sink) for sink in bad)
        self.result = Evaluation(0, 0, 0, self._poisoned)
        if bad:
            told = (
                f"{', '.join(self._poisoned[:5])}{' ...' * (len(bad) > 5)} not finite: every batch "
                "of this evaluation may be invalid. BatchNorm statistics can be computed anew "
                "(nanhunt.recalibrate), weights come from an earlier checkpoint (nanhunt.doctor)"
            )
            if self._refuses:
                raise PoisonedStateError(told)
            warnings.warn(told, stacklevel=2)
        with uninterrupted():
            for root in self._target.roots.values():
                hook: Callable[..., None] = self._after_call
                self._handles.append(root.register_forward_hook(hook, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            for handle in self._handles:
                handle.remove()
            self._handles = []
        flags = [flag for pair in self._flags for flag in pair]
        self._flags = []
        numbers = torch.stack([f.to(flags[0].device) for f in flags]).tolist() if flags else []
        outputs, inputs = numbers[::2], numbers[1::2]
        bad_inputs = sum(1 for number in inputs if number != 0)
        finite = sum(1 for number in outputs if number == 0)
        self.result = Evaluation(len(outputs), finite, bad_inputs, self._poisoned)

    def _after_call(self, _module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = _broken(plain_tensors([args, kwargs]))
        out = _broken(plain_tensors(output))
        zero = torch.zeros(())
        self._flags.append((zero if out is None else out, zero if given is None else given))


@torch.no_grad()
def _broken(tensors: Any) -> Tensor | None:
    """1 if there is a NaN or a +Inf, else 0, on the device; None when there are no numbers."""
    values = [v for v in map(real_values, tensors) if v is not None and v.numel()]
    if not values:
        return None
    # A maximum carries a NaN on, and -Inf alone does not make it infinite.
    tops = torch.stack([v.amax().float().to(values[0].device) for v in values])
    return (~(tops < torch.inf)).any().float()
