"""Replays one step from its snapshot, as often as needed, and tests it exactly."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.observe.observer import Observer
from nanhunt.core.program.printed import printed_to, unheard
from nanhunt.core.program.target import Target
from nanhunt.core.snapshot.snapshot import Snapshot, end_state
from nanhunt.core.snapshot.tape import Tape
from nanhunt.core.tensors.stats import is_bad
from nanhunt.core.watch.raised import held_when_raised
from nanhunt.core.watch.sentinel import Sentinel
from nanhunt.core.watch.step_facts import StepFacts
from nanhunt.torch_private import compiler_loaded, set_loss_scale

Runner = Callable[[], Any]
# How a step of the user's ends that takes its batches itself, from an iterator or a list.
_DATA_ENDED = (StopIteration, LookupError, EOFError)


@dataclasses.dataclass
class Past:
    """The step before the one that is examined.

    Attributes:
        snapshot: its start.
        run: runs it.
    """

    snapshot: Snapshot
    run: Runner


class Upcoming(Protocol):
    """The batches after the failing one, where the hunt itself hands them out."""

    def shift(self, by: int) -> bool:
        """Makes the batch `by` steps later the current one; False when there is none."""


class Replayer:
    """Replays one step; the caller puts the state back afterwards.

    Args:
        target: the model.
        snapshot: the start of the step.
        tape: the step's batches.
        optimizers, scalers: all that are known.
        run: calls the user's step once.
        acquitted: buffers not to be looked at.
        past: the step before, if it can be run again.
        upcoming: the batches to come, if the hunt hands them out.
        hidden_gradients: see `Sentinel`.

    Attributes:
        replays: how often the step has been run.
    """

    def __init__(
        self,
        target: Target,
        snapshot: Snapshot,
        tape: Tape,
        optimizers: list[Optimizer],
        scalers: list[GradScaler],
        run: Runner,
        acquitted: set[str],
        past: Past | None = None,
        upcoming: Upcoming | None = None,
        hidden_gradients: bool = False,
    ) -> None:
        self.target = target
        self.snapshot = snapshot
        self.tape = tape
        self.optimizers = optimizers
        self.scalers = scalers
        self.past = past
        self._run = run
        self._acquitted = acquitted
        self._upcoming = upcoming
        self._hidden_gradients = hidden_gradients
        self.replays = 0

    def exact_facts(self) -> StepFacts:
        """Names what is bad in the present, without running anything."""
        with self._sentinel(None, False) as sentinel:
            for optimizer in self.optimizers:
                named = self.target.named_parameters(optimizer)
                grads = [(n, p.grad) for n, p in named if p.grad is not None]
                sentinel._check("gradient", "", grads)
                sentinel._check("parameter", "", named)
                sentinel._check("state", "", self.target.named_state(optimizer))
            return sentinel.finish()

    def what_is_bad(self, facts: StepFacts) -> tuple[str, ...]:
        """Names what is not finite at the end of a step whose screens tripped; runs nothing."""
        sinks = self.exact_facts().sinks
        names = [f"gradient of {s.name}" if s.kind == "gradient" else s.name for s in sinks]
        if any(is_bad(loss) for loss in facts.losses) or "returned number" in facts.suspects:
            names.insert(0, "loss")
        return tuple(dict.fromkeys(names))

    def replay(
        self,
        observer: Observer | None = None,
        *,
        scale: float | None = None,
        change: Callable[[], AbstractContextManager[Any]] | None = None,
        keep_gradients: bool = False,
        from_previous: bool = False,
    ) -> tuple[StepFacts, BaseException | None]:
        """Runs the step once more from its start, exactly tested, its prints swallowed.

        Args:
            observer: sees every operation, if given.
            scale: the loss scale to use instead of the scaler's own; gradients of updates
                that the scaler skips are then tested too.
            change: changes something after the restore, until the step has run.
            keep_gradients: copy the gradients that updates are given.
            from_previous: run the step before first, with the change in force.
        """
        self.replays += 1
        self.snapshot.restore()
        self.tape.rewind()
        self.tape.start_step()
        if scale is not None:
            self._set_scales(scale)
        with contextlib.ExitStack() as stack:
            eager = observer is not None or change is not None
            if eager and compiler_loaded():
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if from_previous and self.past is not None:
                self.past.snapshot.restore()
                self.tape.go_back()
            if change is not None:
                with uninterrupted():
                    stack.enter_context(change())
            if from_previous and self.past is not None:
                before = self._run_once(None, scale is not None, False, self.past.run)
                self.tape.start_step()
                if before[0].bad or before[1] is not None:
                    return before
            return self._run_once(observer, scale is not None, keep_gradients)

    def go_on(
        self,
        steps: int,
        change: Callable[[], AbstractContextManager[Any]],
        scale: float | None,
        from_previous: bool = False,
    ) -> list[StepFacts]:
        """Runs the step with a change and then up to `steps` further ones, until one is bad.

        Returns:
            What each of the further steps did, their gradients kept; fewer when the data end, none
            when there is no room to keep what they may write and the step did not.
        """
        self.snapshot.restore()
        start = end_state(self.snapshot)
        if start.missing:
            return []
        for optimizer in self.optimizers:  # those that this step did not reach as well
            self.snapshot.before_optimizer(optimizer)
        self.tape.rewind()
        self.tape.start_step()
        if scale is not None:
            self._set_scales(scale)
        done: list[StepFacts] = []
        try:
            if from_previous and self.past is not None:
                self.past.snapshot.restore()
                self.tape.go_back()
            with change():
                if from_previous and self.past is not None:
                    self._run_once(None, scale is not None, False, self.past.run)
                    self.tape.start_step()
                self._run_once(None, scale is not None, False)
                for number in range(1, steps + 1):
                    if self._upcoming is not None and not self._upcoming.shift(number):
                        break
                    facts, error = self._run_once(None, scale is not None, keep_gradients=True)
                    self.replays += 1
                    if isinstance(error, _DATA_ENDED) and not facts.bad:
                        break
                    if error is not None:
                        facts.suspects.append(type(error).__name__)
                    done.append(facts)
                    if facts.bad:
                        break
        finally:
            with uninterrupted():
                start.restore()
                start.release()
            if self._upcoming is not None:
                self._upcoming.shift(0)
        return done

    def other_batch(self) -> Callable[[], AbstractContextManager[Any]] | None:
        """A change to `replay` that gives the step the batch after its own, if there is one."""
        upcoming, count = self._upcoming, len(self.tape.items)
        there = bool(count) if upcoming is None else upcoming.shift(1)
        if upcoming is not None:
            upcoming.shift(0)
        if not there:
            return None

        @contextlib.contextmanager
        def skipped() -> Iterator[None]:
            if upcoming is None:
                self.tape.drop(count)
            else:
                upcoming.shift(1)
            try:
                yield
            finally:
                if upcoming is not None:
                    upcoming.shift(0)

        return skipped

    def _run_once(
        self,
        observer: Observer | None,
        count_skipped: bool,
        keep_gradients: bool,
        run: Runner | None = None,
    ) -> tuple[StepFacts, BaseException | None]:
        """Runs the step from where things stand, exactly tested, its prints swallowed."""
        error: BaseException | None = None
        returned = None
        with contextlib.ExitStack() as stack:
            sentinel = self._sentinel(observer, count_skipped, keep_gradients)
            stack.enter_context(sentinel)
            if observer is not None:
                stack.enter_context(observer)
            stack.enter_context(printed_to(unheard))
            try:
                returned = (run or self._run)()
            except Exception as raised:  # noqa: BLE001  the user's own, again
                error = raised
            finish = lambda: sentinel.finish(returned)  # noqa: E731
            facts = observer.quietly(finish) if observer is not None else finish()
            if observer is not None and error is not None:
                held = functools.partial(held_when_raised, error, observer.storages.region)
                facts.held = observer.quietly(lambda: held(observer.count))
        return facts, error

    def _sentinel(
        self, observer: Observer | None, count_skipped: bool, keep_gradients: bool = False
    ) -> Sentinel:
        return Sentinel(
            self.target,
            self.snapshot,  # a change may make the step reach an update it had not reached
            self.optimizers,
            self.scalers,
            exact=True,
            count_skipped=count_skipped,
            keep_gradients=keep_gradients,
            hidden_gradients=self._hidden_gradients,
            thrown_away=True,
            observer=observer,
            acquitted=self._acquitted,
            activity=observer.activity if observer is not None else None,
        )

    def _set_scales(self, scale: float) -> None:
        for scaler in self.scalers:
            set_loss_scale(scaler, scale)
