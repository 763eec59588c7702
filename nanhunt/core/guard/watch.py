"""Where a loop's steps begin and end, told from outside: its batches, forward passes and updates.

A step ends when all optimizers have stepped and the model is called again, or when a batch is
asked for after an update. It begins with the first forward pass after that: whatever a loop does
between two steps (a learning rate schedule, an evaluation) belongs to neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.guard.bundle import Given
from nanhunt.core.program.target import Target
from nanhunt.core.snapshot.random_state import RandomState
from nanhunt.core.snapshot.tape import Tape
from nanhunt.torch_private import current_node

_CALLS_KEPT = 8  # inputs of the model's calls in one step
# A step is one update of each optimizer at least, and no more updates than this: one of them may
# never be used. A critic is updated 5 times in a step (Arjovsky et al., "Wasserstein GAN", 2017).
_MOST_UPDATES = 16


class Loaders(Tape):
    """The batches that DataLoaders hand out in this step and the one before.

    Args:
        before: called before each batch is made.
    """

    def __init__(self, before: Callable[[], None]) -> None:
        super().__init__(past=1)
        self._before = before

    def take(self, source: Callable[[], Any]) -> Any:
        """As of any tape; `before` is called first."""
        if not self._inside:
            self._before()
        return super().take(source)

    def batches(self) -> tuple[list[Any], list[Any]]:
        """The batches of this step, and those of the step before."""
        past = self._past[-1] if self._past else []
        now, before = ([item for item, end, _ in es if end is None] for es in (self.items, past))
        return now, before


class StepBoundaries:
    """Follows a loop on the thread that enters it.

    Args:
        target: the model.
        optimizers: a live list.
        begin: called when a step begins.
        end: called when one has ended.
        left_out: called when the loop has dropped a batch after the forward pass.
        before_update: called with each optimizer before it writes.

    Attributes:
        tape: what DataLoaders gave.
        asked: the random state before the step's first batch was made, or None.
        since: the random state after the last update.
        calls: positional and keyword inputs of the model's calls in this step.
        stepped: ids of the optimizers that have stepped in this step.
        open: whether a step has begun.
        early: whether the model's forward passes cannot be seen (compiled, or not called by its
            root); a step then begins as soon as the one before has ended.
    """

    def __init__(
        self,
        target: Target,
        optimizers: list[Optimizer],
        begin: Callable[[], None],
        end: Callable[[], None],
        left_out: Callable[[], None],
        before_update: Callable[[Optimizer], None],
    ) -> None:
        self._target = target
        self._optimizers = optimizers
        self._begin, self._end, self._left_out = begin, end, left_out
        self._before = before_update
        self.tape = Loaders(self._before_loader)
        self.asked: RandomState | None = None
        self.since = RandomState.now()
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.stepped: set[int] = set()
        self.open = self.early = False
        self._updates = 0
        self._told: list[tuple[Any, RandomState]] | None = None
        self._forward = self._backward = self._updating = False
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> StepBoundaries:
        self._thread = threading.get_ident()
        with uninterrupted():
            self._undo = [
                register_optimizer_step_pre_hook(self._before_update).remove,
                register_optimizer_step_post_hook(self._after_update).remove,
            ]
            for root in self._target.roots.values():
                if isinstance(root, torch.jit.ScriptModule):  # takes none
                    continue
                hook = root.register_forward_pre_hook(self._on_forward, with_kwargs=True)
                self._undo.append(hook.remove)
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            while self._undo:
                self._undo.pop()()
            self.calls, self._told = [], None
            self.tape.next_step()
            self.tape.next_step()

    def given(self) -> Given:
        """What the loop has been given in this step."""
        if self._told is not None:
            return Given([batch for batch, _ in self._told], [], True, self.calls)
        return Given(*self.tape.batches(), False, self.calls)

    @property
    def after_batch(self) -> RandomState:
        """The random state after this step's first batch was made."""
        given = [(random, end) for _, end, random in self.tape.items]
        if self._told is not None:
            given = [(random, None) for _, random in self._told]
        return next((random for random, end in given if end is None), self.since)

    # -- batches ----------------------------------------------------------------------------------

    def batch(self, batch: Any) -> None:
        """The loop has got this batch."""
        self._before_batch()
        self._told = [*(self._told or ()), (batch, RandomState.now())]

    def hand_out(self, data: Iterable[Any]) -> Iterator[Any]:
        """Hands out the batches of any iterable, and follows them."""
        iterator = iter(data)
        while True:
            with self.tape.not_recorded():  # a DataLoader inside
                self._before_batch()
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            self._told = [*(self._told or ()), (batch, RandomState.now())]
            yield batch

    def _before_loader(self) -> None:
        if self._told is None:
            self._before_batch()

    def _before_batch(self) -> None:
        if self._forward and not self._backward and not self.stepped:
            self._left_out()
            self.finish_step()
        elif self.stepped:
            self.finish_step()
        elif self._backward:
            return  # gradients are being accumulated
        self.asked = RandomState.now()
        self._told = [] if self._told is not None else None
        self.tape.next_step()
        if self.early or self.open:
            self._open_anew()

    # -- the model --------------------------------------------------------------------------------

    def _on_forward(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():  # what is compiled has no hooks: it is not seen
            return
        if threading.get_ident() != self._thread or current_node() is not None:
            return
        if not module.training and not torch.is_grad_enabled():
            if not self.open:
                self.asked = None  # that batch was for an evaluation
            return
        if self.stepped and self._all_stepped():
            self.finish_step()
        if not self._forward:
            self._open_anew()
        self._forward = True
        if len(self.calls) < _CALLS_KEPT:
            self.calls.append((args, kwargs))

    def before_backward(self) -> None:
        """A backward pass begins."""
        if self.early and self.stepped and self._all_stepped():
            self.finish_step()
        self._not_seen()
        self._backward = True

    def _not_seen(self) -> None:
        """A step begins without a forward pass that could be seen."""
        if not self.open:
            self.early = True
            self.ensure_open()

    def _all_stepped(self) -> bool:
        if self._updates >= _MOST_UPDATES:
            return True
        return all(id(optimizer) in self.stepped for optimizer in self._optimizers)

    # -- updates ----------------------------------------------------------------------------------

    def _before_update(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if threading.get_ident() == self._thread:
            if self.stepped and self._all_stepped():
                self.finish_step()
            self._not_seen()
            self._updating = True  # a closure may call the model from in there
            self._before(optimizer)

    def _after_update(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if threading.get_ident() == self._thread:
            self.note_update(optimizer)

    def note_update(self, optimizer: Optimizer) -> None:
        """The optimizer has stepped, or its scaler has left the step out."""
        self.stepped.add(id(optimizer))
        self._updates += 1
        self.early |= not self._forward
        self.since = RandomState.now()

    def after_check(self) -> None:
        """An update has been looked at; where nothing else tells, the next step begins here."""
        if self.early and self.asked is None and self._all_stepped():
            self.finish_step()
            self.ensure_open()

    # -- steps ------------------------------------------------------------------------------------

    def ensure_open(self) -> None:
        """A step begins now, unless one has begun."""
        if not self.open:
            self._begin()
            self.open = True
            self._forget()

    def end_of_loop(self) -> None:
        """The loop has ended."""
        if self._forward and not self._backward and not self.stepped:
            self._left_out()
        self.finish_step()

    def finish_step(self) -> None:
        """The step that is open, if any, has ended."""
        if self.open and not self._fresh:
            self._end()
        self.open = False
        self.asked = None
        self._forget()

    @property
    def _fresh(self) -> bool:
        return not (self._forward or self._backward or self._updating or self.stepped)

    def _open_anew(self) -> None:
        """A step begins now, also where one was open that nothing has happened in."""
        self.open = self.open and not self._fresh
        self.ensure_open()

    def _forget(self) -> None:
        self.calls, self.stepped = [], set()
        self._updates = 0
        self._forward = self._backward = self._updating = False
