"""`Guard`: checks the steps of a training loop, undoes bad ones and counts them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.attached.ours import ours
from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.guard import bundle as bundles
from nanhunt.core.guard.policies import STOPPED, BadStep, Policy
from nanhunt.core.guard.undo import Undo
from nanhunt.core.guard.watch import StepBoundaries
from nanhunt.core.hunting.ledger import Ledger
from nanhunt.core.hunting.own_failures import for_its_authors
from nanhunt.core.program.target import Target
from nanhunt.core.snapshot.installed import Installed
from nanhunt.core.snapshot.reachable import Surroundings
from nanhunt.core.watch.present import bad_state, confirmed
from nanhunt.core.watch.sentinel import Sentinel
from nanhunt.core.watch.step_facts import Sink, StepFacts, names
from nanhunt.errors import GuardStoppedError, NanhuntError, PoisonedStateError
from nanhunt.records.guard import GuardEvent, GuardReport

_EVENTS_KEPT = 100


class Guard:
    """An active guard; made by `nanhunt.guard`."""

    def __init__(
        self,
        target: Target,
        optimizers: list[Optimizer],
        scalers: list[GradScaler],
        policy: Policy,
        numbers: dict[str, int],
        folder: Path | None,
        max_bundles: int,
    ) -> None:
        self._target, self._optimizers, self._scalers = target, optimizers, scalers
        self._policy, self._numbers = policy, numbers
        self._folder, self._bundles_left = folder, max_bundles
        self._undo = Undo(target, optimizers, scalers, policy.keeps_good)
        self._acquitted = Ledger(target).acquitted
        self._boundaries = StepBoundaries(
            target,
            optimizers,
            self._cautious(self._begin),
            self._cautious(self._end),
            self._cautious(self._left_out),
            self._cautious(self._undo.snapshot.before_optimizer),
        )
        self._sentinel = self._make_sentinel()
        self._stack = contextlib.ExitStack()
        self._checking = self._checked = self._leaves = False
        self._doomed = self._bad = False
        self._asked = self._boundaries.since
        self._good_at: int | None = None
        self._steps = self._checks = self._in_a_row = 0
        self._counts: dict[str, int] = {}
        self._events: list[GuardEvent] = []
        self._notes: list[str] = []
        self._stopped: GuardStoppedError | None = None
        self._ended_by: type[BaseException] | None = None  # not by itself: the loop's own

    # -- the public face --------------------------------------------------------------------------

    @property
    def report(self) -> GuardReport:
        """What it has done so far."""
        at_hand = self._boundaries.open and bool(self._boundaries.stepped or self._bad)
        cut_short = self._ended_by is not None and not self._counts and self._stopped is None
        failed = self._sentinel.off and not self._counts and self._stopped is None
        return GuardReport(
            steps=self._steps + at_hand,
            checks=self._checks,
            counts=dict(self._counts),
            events=tuple(self._events),
            stopped=str(self._stopped or ""),
            notes=tuple(dict.fromkeys(self._notes)),
            interrupted=self._ended_by is not None
            and issubclass(self._ended_by, KeyboardInterrupt),
            status="internal_error" if failed else "interrupted" if cut_short else "",
        )

    @property
    def undone(self) -> bool:
        """Whether the step at hand went bad and was undone, until the next one begins."""
        return self._doomed

    def batches(self, data: Iterable[Any]) -> Iterator[Any]:
        """Hands out the batches of an iterable that is no DataLoader, or wraps one.

        Only then is a step known to begin where its batch is made, and its batch in the bundle.
        """
        return self._boundaries.hand_out(data)

    def batch(self, batch: Any) -> None:
        """Tells that the loop has just got this batch; for callbacks of frameworks."""
        self._boundaries.batch(batch)

    def leave_when_stopped(self) -> None:
        """Removes itself when it ends the loop, where nobody else will."""
        self._leaves = True

    # -- entering and leaving ---------------------------------------------------------------------

    def __enter__(self) -> Guard:
        bad = self._bad_state()
        if bad:
            raise PoisonedStateError(
                f"{names(bad)}: not finite before the first step. A guard has nothing good to go "
                "back to: look at the checkpoint with nanhunt.doctor"
            )
        with contextlib.ExitStack() as stack:
            stack.callback(self._undo.release)
            # Entered once more, it goes on counting; what it has kept is gone.
            self._good_at, self._stopped, self._in_a_row = None, None, 0
            self._ended_by = None
            stack.enter_context(self.attached())
            self._boundaries.ensure_open()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, _traceback: Any) -> None:
        self._ended_by = kind
        try:
            if kind is None:
                self._boundaries.end_of_loop()
        finally:
            with uninterrupted():
                self._undo.scalers_now()
                self._stack.close()

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Hooks and patches are in place within the block; snapshots outlive it."""
        with Installed(self._boundaries.tape, Surroundings(None)), self._boundaries:
            self._set_checking(self._checked)
            try:
                yield
            finally:
                self._set_checking(False)

    def _make_sentinel(self) -> Sentinel:
        sentinel = Sentinel(
            self._target,
            self._undo.snapshot,
            self._optimizers,
            self._scalers,
            acquitted=self._acquitted,
        )
        sentinel.before_backward = self._boundaries.before_backward
        sentinel.after_update = self._after_update
        sentinel.after_skip = self._after_skip
        sentinel.on_failure = self._own_failure
        return sentinel

    def _cautious(self, watching: Callable[..., None]) -> Callable[..., None]:
        """Something of nanhunt's whose failure must not end the loop."""

        def called(*args: Any) -> None:
            if not self._sentinel.off:
                with ours(self._own_failure):
                    watching(*args)

        return called

    def _own_failure(self, error: Exception) -> None:
        """Nanhunt itself failed: it stops watching, and the loop goes on.

        Raises:
            GuardStoppedError: a bad step was being dealt with, and nobody else will.
            Exception: other ranks wait for this one.
        """
        if isinstance(error, NanhuntError) or has_ranks():
            raise error
        told = f"nanhunt itself failed and stopped watching: {for_its_authors(error)}"
        self._sentinel.off = True
        self._notes.append(f"{told}. Please send this line to nanhunt's authors")
        if self._bad:
            self._stop(GuardStoppedError(f"step {self._steps} was bad, and {told}"))

    def _stop(self, error: GuardStoppedError) -> NoReturn:
        self._stopped = error
        if self._leaves:
            self.__exit__(GuardStoppedError, error, None)
        raise error

    def _set_checking(self, on: bool) -> None:
        if on != self._checking:
            with uninterrupted():
                self._checking = on
                if on:
                    self._sentinel.__enter__()
                else:
                    self._sentinel.__exit__()

    # -- steps ------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """A step begins: called before the first forward pass."""
        place = self._steps % self._numbers["every"]
        self._undo.scalers_now()
        self._doomed = self._bad = False
        if place == 0:
            self._undo.begin()
            self._asked = self._boundaries.asked or self._boundaries.since
            if self._policy.keeps_good:
                self._keep_good()
        self._checked = place == self._numbers["every"] - 1
        self._set_checking(self._checked)
        self._sentinel.facts = StepFacts()

    def _keep_good(self) -> None:
        """Takes the snapshot to roll back to, when the last one is too old, or lacks a group."""
        old = self._good_at is None or self._steps - self._good_at >= self._numbers["keep_every"]
        old |= self._undo.regrouped
        if old and not self._bad_state():
            self._undo.keep()
            self._good_at = self._steps

    def _end(self) -> None:
        """It has ended, healthy or undone."""
        self._steps += 1
        if self._checking and not self._bad:
            self._in_a_row = 0
            self._undo.settle()

    def _left_out(self) -> None:
        """The loop dropped a batch after its forward pass: buffers may have taken it in."""
        if self._checking:
            self._look(alone=True)

    def _after_update(self, _optimizer: Optimizer) -> None:
        if self._doomed or self._stopped is not None:
            self._undo.now(self._asked)
            if self._stopped is not None:
                raise self._stopped
        elif self._checking:
            self._look()
        self._boundaries.after_check()

    def _after_skip(self, optimizer: Optimizer) -> None:
        self._boundaries.note_update(optimizer)
        if not self._doomed:
            self._look()

    # -- looking ----------------------------------------------------------------------------------

    def _look(self, alone: bool = False) -> None:
        """Reads the screens; acts when something is bad.

        Args:
            alone: whether other ranks may be elsewhere.
        """
        facts = self._sentinel.finish()
        self._checks += 1
        bad: list[Sink] = []
        if facts.suspects:
            bad = confirmed(facts, self._target, self._optimizers, self._acquitted)
            if not bad:
                self._sentinel.test_exactly(facts.suspects)
        if bad if alone else any_rank(bool(bad), self._target):
            self._failed(bad)

    # -- acting -----------------------------------------------------------------------------------

    def _failed(self, bad: list[Sink]) -> None:
        told = tuple(str(sink) for sink in bad) or ("another rank",)
        again, self._bad = self._bad, True
        if again:  # a further update of a step that has been counted
            trouble, written = self._act(), ""
        else:
            self._in_a_row += 1
            written = self._keep_bundle(told)
            trouble = self._act() or self._bound()
        if again and not trouble:
            return
        action = STOPPED if trouble else self._policy.event
        self._counts[action] = self._counts.get(action, 0) + 1
        event = GuardEvent(self._steps, told, action, written)
        if len(self._events) < _EVENTS_KEPT:
            self._events.append(event)
        if trouble:
            self._stop(GuardStoppedError(f"{trouble}; {event}"))

    def _bound(self) -> str:
        """Why the loop has to end although the step could be dealt with, or an empty string."""
        failures = sum(self._counts.values()) + 1
        if self._policy.ends_loop:
            return f"policy {self._policy.name}"
        if self._in_a_row >= self._numbers["limit"]:
            return f"{self._in_a_row} bad steps in a row (limit)"
        if failures >= self._numbers["total"]:
            return f"{failures} bad steps altogether (total)"
        return ""

    def _act(self) -> str:
        """Does what the policy says; returns why that does not do, or an empty string."""
        if self._undo.missing:
            return f"the step could not be undone ({self._undo.missing})"
        step = BadStep(self._undo, self._asked, self._optimizers, self._bad_state)
        try:
            return self._policy.treat(step)
        finally:
            self._doomed |= step.undone
            if step.lost:
                self._notes.append(f"step {self._steps}: could not put back {step.lost}")

    def _bad_state(self) -> list[Sink]:
        """What of the model's and the optimizers' state is not finite now."""
        return bad_state(self._target, self._optimizers, self._acquitted)

    def _keep_bundle(self, told: tuple[str, ...]) -> str:
        """Writes the bundle, with the state at the start of the step; returns its path."""
        if self._folder is None or self._bundles_left <= 0 or self._undo.missing:
            return ""
        self._bundles_left -= 1
        try:
            with self._undo.at_start(self._boundaries):
                content = bundles.content_of(
                    self._target,
                    self._optimizers,
                    self._scalers,
                    self._boundaries.given(),
                    self._steps,
                    told,
                )
                return str(bundles.write(self._folder, content))
        except bundles.NOT_WRITTEN as error:
            self._notes.append(f"no bundle of step {self._steps}: {error}")
            return ""


def any_rank(bad: bool, target: Target) -> bool:
    """Whether the step is bad on this rank of a distributed run or another: all act alike."""
    if not has_ranks():
        return bad
    device = next(iter(target.parameters.values())).device
    flag = torch.tensor(float(bad), device=device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag.item())


def has_ranks() -> bool:
    """Whether there are other processes in this run."""
    ranks = torch.distributed
    return ranks.is_available() and ranks.is_initialized() and ranks.get_world_size() > 1
