"""Calls of the model in one step of a foreign loop, recorded so that they can be run again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nanhunt.core.attached.patches import uncompiled, unpatched
from nanhunt.core.snapshot.random_state import RandomState
from nanhunt.core.tensors.devices import COMMON_AUTOCAST
from nanhunt.core.tensors.stats import count_bad, is_bad, plain_tensors

_WAITING = 16  # calls in eval mode with gradients on whose inputs are kept for a backward pass


@dataclasses.dataclass
class RecordedCall:
    """One call of a root module: its inputs, its surroundings, and what came back."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    random: RandomState
    autocast: list[tuple[str, bool, torch.dtype]]
    grad_enabled: bool
    gradients: dict[int, Tensor] = dataclasses.field(default_factory=dict)
    returned: bool = False


class RecordedCalls:
    """Keeps the calls of some root modules by hooks on them.

    Args:
        before_first: called before the first call in each step.

    Attributes:
        calls: those of this step, in order.
        outputs_bad: whether an output was not finite when they were run again.
        exact: whether a -Inf in an output counts as bad too; it may be a mask in the logits.
    """

    def __init__(self, before_first: Callable[[], None]) -> None:
        self._before_first = before_first
        self.calls: list[RecordedCall] = []
        self.outputs_bad = self.exact = False
        self._handles: list[Any] = []

    def attach(self, roots: Iterable[nn.Module]) -> None:
        """Puts the hooks on; scripted modules take none, and their calls are not recorded."""
        for root in roots:
            if not isinstance(root, torch.jit.ScriptModule):
                self._handles += [
                    root.register_forward_pre_hook(uncompiled(self._note_call), with_kwargs=True),
                    root.register_forward_hook(uncompiled(self._note_output)),
                ]

    def detach(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()

    def forget(self) -> None:
        """A new step begins."""
        self.calls = []

    def given(self) -> list[Any]:
        """What each call was given, so that bad inputs have names."""
        return [call.args or call.kwargs for call in self.calls]

    def bad_inputs(self) -> bool:
        """Whether an input of a call is not finite."""
        return any(
            is_bad(tensor)
            for call in self.calls
            for tensor in plain_tensors([call.args, call.kwargs])
        )

    def run(self) -> list[Tensor]:
        """Runs the model again, forward and backward.

        Returns:
            Its bad outputs, which stand for the loss.
        """
        backward = unpatched(torch.autograd, "backward")  # these are no losses
        bad: list[Tensor] = []
        self.outputs_bad = False
        for call in self.calls:
            call.random.restore()
            output = self._call_step(call)
            tensors = plain_tensors(output)
            pairs = [(tensors[i], g) for i, g in call.gradients.items() if i < len(tensors)]
            for tensor in tensors:
                nan, posinf, neginf = count_bad(tensor)
                self.outputs_bad |= bool(nan or posinf or neginf)
                if nan or posinf or (neginf and self.exact):
                    bad.append(tensor)
            # Behind a bad output the gradients that came back tell nothing: they were bad for it.
            if pairs and not bad:
                backward([t for t, _ in pairs], [g for _, g in pairs])
        return bad

    @staticmethod
    def _call_step(call: RecordedCall) -> Any:
        """Calls a root module as it was called in the loop; stacks are cut off here."""
        with torch.set_grad_enabled(call.grad_enabled):
            contexts = [torch.autocast(kind, dtype=dtype) for kind, _, dtype in call.autocast]
            for context in contexts:
                context.__enter__()
            try:
                return call.module(*call.args, **call.kwargs)
            finally:
                for context in reversed(contexts):
                    context.__exit__(None, None, None)

    def _note_call(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if _evaluates(module):
            return
        if not module.training:
            self._drop_evaluations()
        if not self.calls:
            self._before_first()
        kinds = [device for device in COMMON_AUTOCAST if torch.is_autocast_enabled(device)]
        self.calls.append(
            RecordedCall(
                module,
                args,
                kwargs,
                RandomState.now(),
                [(kind, True, torch.get_autocast_dtype(kind)) for kind in kinds],
                torch.is_grad_enabled(),
            )
        )

    def _drop_evaluations(self) -> None:
        """An evaluation that forgot `no_grad` must not hold all of its data.

        Training in eval mode is told from it by its backward passes.
        """
        waiting = [c for c in self.calls if not c.module.training and not c.gradients]
        if len(waiting) >= _WAITING:
            self.calls = [call for call in self.calls if call is not waiting[0]]

    def _note_output(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        if _evaluates(module):
            return
        # Not simply the last one: a root may call another, or end a step while it runs.
        running = (c for c in reversed(self.calls) if c.module is module and not c.returned)
        call = next(running, None)
        if call is None:
            return
        call.returned = True
        for number, tensor in enumerate(plain_tensors(output)):
            if tensor.requires_grad:
                tensor.register_hook(_keeper(call.gradients, number))


def _evaluates(module: nn.Module) -> bool:
    """Whether a call changes nothing: an evaluation of thousands of batches is not kept."""
    return not module.training and not torch.is_grad_enabled()


def _keeper(gradients: dict[int, Tensor], number: int) -> Callable[[Tensor], None]:
    def keep(gradient: Tensor) -> None:
        gradients[number] = gradient.detach()

    return keep
