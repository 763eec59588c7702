"""Hooks on the modules of one step: where it can stop, and what is measured there."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nanhunt.core.observe.observer import Activity
from nanhunt.core.program.module_stack import ModuleStack, Place
from nanhunt.core.program.target import Target
from nanhunt.core.stepping.events import AFTER, BACKWARD, BEFORE, Here, ModuleCall
from nanhunt.core.stepping.gauges import Gauges
from nanhunt.core.tensors.stats import plain_tensors
from nanhunt.torch_private import is_transformed

Quietly = Callable[[Callable[[], Any]], Any]


class StepHooks:
    """Hooks for one step, on its thread and on those of its backward pass.

    Gradients are seen by hooks on the modules' output tensors: unlike a module's full backward
    hook they bear in-place operations on that output.

    Args:
        target: gives modules their names.
        number: of the step.
        activity: tells forward from backward.
        quietly: calls a function unobserved.
        gauges: measures what passes, if given.
        at: told where the step is; may block the step, and may raise to end it.
    """

    def __init__(
        self,
        target: Target,
        number: int,
        activity: Activity,
        quietly: Quietly,
        gauges: Gauges | None,
        at: Callable[[Here], None] | None,
    ) -> None:
        self._number = number
        self._quietly = quietly
        self._gauges = gauges
        self._at = at
        self._modules = ModuleStack(
            target, activity.in_backward, quietly, entered=self._entered, left=self._left
        )
        self._running: list[tuple[int, ModuleCall]] = []
        self._handles: list[RemovableHandle] = []
        self._hooked: tuple[weakref.ref[Tensor], list[tuple[ModuleCall, nn.Module]]] | None = None

    def __enter__(self) -> StepHooks:
        self._modules.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._modules.__exit__()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._running.clear()
        self._hooked = None
        if self._gauges is not None:
            self._quietly(lambda: self._gauges.finish(self._number))  # type: ignore[union-attr]

    def _entered(self, module: nn.Module, place: Place, held: Any) -> None:
        depth = self._modules.depth
        # Calls that ended with an exception have not said so.
        while self._running and self._running[-1][0] >= depth:
            self._running.pop()
        parent = self._running[-1][1] if self._running else None
        call = ModuleCall(place.module, place.call, place.kind, parent)
        self._running.append((depth, call))
        gauges = self._gauges
        if gauges is not None:
            self._quietly(lambda: gauges.note_input(module, call.path, held))
        self._stop_at(BEFORE, call, module, held)

    def _left(self, module: nn.Module, place: Place, output: Any) -> None:
        depth = self._modules.depth
        while self._running and self._running[-1][0] > depth:
            self._running.pop()
        _, call = self._running.pop()
        gauges = self._gauges
        if gauges is not None:
            self._quietly(lambda: gauges.note_output(module, call.path, output))
        for tensor in plain_tensors(output):
            if tensor.requires_grad and not is_transformed(tensor):
                self._hook(tensor, call, module)
        self._stop_at(AFTER, call, module, output)

    def _hook(self, tensor: Tensor, call: ModuleCall, module: nn.Module) -> None:
        """Asks for the gradient; a child's output that is its parent's too is hooked once."""
        if self._hooked is not None and self._hooked[0]() is tensor:
            self._hooked[1].append((call, module))
            return
        calls = [(call, module)]
        self._hooked = (weakref.ref(tensor), calls)
        self._handles.append(tensor.register_hook(lambda grad: self._gradient(calls, grad)))

    def _gradient(self, calls: list[tuple[ModuleCall, nn.Module]], gradient: Tensor) -> None:
        gauges = self._gauges
        for call, module in reversed(calls):  # parents first: backward runs from the outside in
            if gauges is not None:
                self._quietly(lambda call=call: gauges.note_gradient(call.path, gradient))  # type: ignore[misc]
            self._stop_at(BACKWARD, call, module, gradient)

    def _stop_at(self, phase: str, call: ModuleCall, module: nn.Module, held: Any) -> None:
        at = self._at
        if at is not None:
            here = Here(self._number, phase, call, module, held)
            self._quietly(lambda: at(here))
