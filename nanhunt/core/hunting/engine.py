"""The engine of a hunt: runs the user's steps under watch and examines the first bad one."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.attached.ours import is_ours
from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.hunting.investigation import Investigation, StepContext
from nanhunt.core.hunting.ledger import Ledger, listed, working_scalers
from nanhunt.core.hunting.progress import Progress
from nanhunt.core.hunting.raised import add_note, whence
from nanhunt.core.hunting.usage import check_step_fn, check_training
from nanhunt.core.learning import LearningLog, not_training
from nanhunt.core.observe.observer import Activity, Observer
from nanhunt.core.program.target import Target
from nanhunt.core.snapshot.course import Course
from nanhunt.core.snapshot.installed import Installed
from nanhunt.core.snapshot.reachable import Surroundings, optimizers_in_memory
from nanhunt.core.snapshot.snapshot import Snapshot
from nanhunt.core.snapshot.tape import DataEndedError
from nanhunt.core.trials.prove import TimeLimit
from nanhunt.core.watch.magnitudes import History
from nanhunt.core.watch.replay import Past, Replayer
from nanhunt.core.watch.scaler_skips import ScalerSkips
from nanhunt.core.watch.sentinel import Sentinel
from nanhunt.core.watch.step_facts import StepFacts
from nanhunt.errors import HuntClosedError, NanhuntError, UsageError
from nanhunt.records.report import Finding, Report


class HuntEngine:
    """Runs whole steps under watch; undoes and investigates the first bad one.

    `nanhunt.Hunt` is this and can also stop inside a step; its docstring explains the arguments.
    """

    def __init__(
        self,
        model: Any,
        step_fn: Callable[..., Any],
        *,
        optimizer: Optimizer | Iterable[Optimizer] | None = None,
        scaler: GradScaler | Iterable[GradScaler] | None = None,
        data: Iterable[Any] | None = None,
        complex_half: bool = True,
        snapshot: bool = True,
        trials: bool = True,
        confirm: int = 3,
        trial_seconds: float | None = None,
        back: int = 1,
        progress: bool | Callable[[int, int, str], None] = True,
    ) -> None:
        self._target = Target(model)
        check_step_fn(step_fn, data is not None)
        if back < 0:
            raise UsageError(f"back counts steps and must be at least 0, not {back}")
        self._step_fn = step_fn
        self._examines = True
        self.bad: tuple[str, ...] = ()
        self._trials, self._confirm = trials, confirm
        self._trial_time = TimeLimit(trial_seconds)
        # A wrapper made by functools keeps what it wraps: that is what can be searched.
        self._around = Surroundings(getattr(step_fn, "__wrapped__", step_fn))
        self._by_hand = isinstance(optimizer, tuple | list) and not optimizer
        given = listed(optimizer, Optimizer, "optimizer")
        found = given or [o for o in self._around.optimizers if self._target.owns(o)]
        self._optimizers = found or [o for o in optimizers_in_memory() if self._target.owns(o)]
        self._scalers = working_scalers(scaler) or self._around.scalers
        parts = (self._target, self._around, self._optimizers, self._scalers)
        first = Snapshot(*parts, snapshot)
        self._course = Course(functools.partial(Snapshot, *parts), first, data, back)
        self._observes = complex_half
        self._observed = -1  # the last step whose operations were observed
        self._progress = Progress(progress)
        self._skips = ScalerSkips()
        self._history = History()
        self._learning: LearningLog | None = None
        self._hidden_gradients = False
        self._trains = False  # whether a step has shown that this is training
        self._ledger = Ledger(self._target)
        self._exact_labels: set[str] = set()
        self._raised: BaseException | None = None  # by the user's step
        self._backwards_before = 0
        self._closed = False

    def __enter__(self) -> HuntEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the public face ------------------------------------------------------------------------

    def run(self, steps: int | None = 100, *, examine: bool = True) -> Report:
        """Runs up to `steps` steps (None: to the data's end), to a numeric failure or Ctrl-C.

        Args:
            steps: how many.
            examine: as in `step`.
        """
        if steps is None and self._course.batches is not None:
            counter: Iterable[int] = itertools.count()
        elif not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise UsageError(f"steps must be a whole number of at least 1, not {steps!r}")
        else:
            counter = range(steps)
        total = steps or 0
        try:
            for done in counter:
                self._progress.show(done, total, "watching")
                found = self.step(examine=examine)
                if found is not None or self.bad or self._ledger.failed or self._halted():
                    break
        except KeyboardInterrupt:
            self._ledger.interrupted = True
        except DataEndedError:
            if steps is not None:
                self._ledger.notes.append(f"the data ended after {self.steps_run} steps")
        finally:
            self._progress.finish(self.steps_run, total)
        self._judge_learning()
        self._note_untrained()
        return self.report

    def _judge_learning(self) -> None:
        """Asks after a run that stayed finite whether it learned."""
        numeric = any(f.kind not in ("complex_half", "not_training") for f in self._ledger.critical)
        ended = self._ledger.interrupted or self._ledger.failed
        if self._learning is None or numeric or ended or self._by_hand:
            return
        try:
            for finding in not_training(self._learning):
                self._ledger.add(finding)
        except Exception as error:  # noqa: BLE001  a mistake of ours
            self._ledger.own_failure(error, "whether it learns could not be judged")
        self._ledger.publish()

    def _note_untrained(self) -> None:
        """Tells after a run in training mode that it had no backward pass at all."""
        quiet = not (self.findings or self._ledger.interrupted or self._ledger.failed)
        if quiet and self.steps_run and not self._trains and not self._by_hand:
            self._ledger.notes.append("no step has called backward(), so nothing was trained yet")
            self._ledger.publish()

    def step(self, *, examine: bool = True) -> Finding | None:
        """Runs one step; returns the finding when it went bad, and has then undone it.

        When nanhunt itself fails the step is undone as well, and the report says so.

        Args:
            examine: False to leave a bad step unexplained: it is undone, and `bad` names what
                was not finite.

        Raises:
            KeyboardInterrupt: after the step was undone.
            Exception: the step's own, with a note; the step was undone.
        """
        if self._closed:
            raise HuntClosedError("this hunt is closed; make a new nanhunt.Hunt")
        self._ledger.goes_on()
        self._examines, self.bad, self._raised = examine, (), None
        try:
            with self._installed():
                self._course.next_batch()
                return self._step_or_undone()
        except KeyboardInterrupt:
            self._ledger.interrupted = True
            raise
        finally:
            self._raised = None  # its traceback holds the step's tensors
            self._ledger.unexamined = self.bad
            self._ledger.publish()

    def _step_or_undone(self) -> Finding | None:
        """The one place where failures of nanhunt's own are caught: the user's go on from here."""
        begun = False
        try:
            self._begin_step()
            begun = True
            return self._step()
        except BaseException as error:  # the step's own, Ctrl-C too: undone, and goes on
            own = self._is_own(error)
            number = self._course.number
            if own:
                self._ledger.own_failure(error, f"nanhunt itself failed in step {number}")
            elif error is self._raised:
                self._ledger.ended(error, number)
                self._explain_exception(error)
            if begun:
                self._undo_step()
            if not own:
                raise
        return None

    def _is_own(self, error: BaseException) -> bool:
        """Whether nanhunt failed, and neither the user's step nor their way to call this."""
        if not isinstance(error, Exception) or isinstance(error, NanhuntError):
            return False
        return is_ours(error) or error is not self._raised

    def _undo_step(self) -> None:
        """Undoes a step that an exception ended, which is not to be hidden by another."""
        try:
            with uninterrupted():
                self.rewind()
        except Exception as error:  # noqa: BLE001  whatever it is, what ended the step matters more
            number = self._course.number
            self._ledger.own_failure(error, f"step {number} could not be undone to its start")

    def _begin_step(self) -> None:
        self._course.begin()
        if self.steps_run == 0:
            self._history.note_step(-1, None, self._target)
        if self._learning is None and self._target.training:
            around = self._around.schedulers
            self._learning = LearningLog(self._target, self._optimizers, around)

    def rewind(self) -> None:
        """Puts everything back to the start of the last step; its batches come again."""
        self._course.rewind()

    def back(self) -> int:
        """Undoes the last step, or, where that is undone already, the one before it.

        Returns:
            The step at whose start the training stands now.

        Raises:
            UsageError: there is nothing left that could be undone.
        """
        with uninterrupted():
            before = self.position
            self._course.back()
            if self.position < before:
                self.bad = ()
            self._learning = None  # what it noted of the undone steps did not happen
        return self.position

    def close(self) -> None:
        """Lets go of everything that was kept. The training goes on where it stands."""
        if not self._closed:
            self._closed = True
            self._course.release()
            self._ledger.publish()

    @property
    def report(self) -> Report:
        """What has been found so far."""
        return self._ledger.report()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What has been found so far, the most important first."""
        return self._ledger.findings

    @property
    def position(self) -> int:
        """The step at whose start the training stands, 0-based."""
        return self._course.position

    @property
    def undone(self) -> bool:
        """Whether the training stands at the start of the step that ran last."""
        return self._course.undone

    @property
    def closed(self) -> bool:
        """Whether the hunt has been closed."""
        return self._closed

    @property
    def loss_size(self) -> float | None:
        """The magnitude of the last step's loss, if it has one."""
        return self._sentinel.facts.loss_size if self.steps_run else None

    @property
    def _snapshot(self) -> Snapshot:
        return self._course.snapshot

    @property
    def steps_run(self) -> int:
        """Number of steps run."""
        return self._ledger.steps_run

    # -- one step -------------------------------------------------------------------------------

    def _step(self) -> Finding | None:
        number = self._course.number
        observed = self._examines and self._to_observe(number) and not self._target.compiled
        activity = Activity()
        observer = Observer(self._target, activity) if observed else None
        self._sentinel = self._make_sentinel(activity, observer)
        started = time.perf_counter()
        with self._sentinel:
            if observer is not None:
                with observer:
                    with self._inside(activity):
                        returned = self._call_step()
                    facts = observer.quietly(lambda: self._sentinel.finish(returned))
            else:
                with self._inside(activity):
                    returned = self._call_step()
                facts = self._sentinel.finish(returned)
        seconds = time.perf_counter() - started
        self._ledger.steps_run = max(self._ledger.steps_run, number + 1)
        self._course.end()
        if observer is not None:
            self._observed = number
            self._ledger.costs.setdefault("observed_step_seconds", seconds)
            self._note_observed(observer, facts, number)
        else:
            self._ledger.step_seconds.append(seconds)
        finding = self._look_into(facts, number)
        if finding is None and not self.bad:
            if not self._trains and not self._by_hand:
                self._trains = check_training(facts, self._target, self._optimizers)
            self._history.note_step(number, facts.loss_size, self._target)
            if self._learning is not None:
                self._learning.after_step(facts)
            self._snapshot.settle()
            if number == 0:
                self._target.refresh()
        return finding

    def _to_observe(self, number: int) -> bool:
        """Whether to observe a step's operations: in the steps 0, 10, 100, 1,000 ..."""
        power = int(math.log10(number)) if number else 0
        return self._observes and number > self._observed and number in (0, 10**power)

    def _note_observed(self, observer: Observer, facts: StepFacts, number: int) -> None:
        """Takes over what the observed step shows besides failures."""
        if observer.hides_gradients:
            self._hidden_gradients = True
            if observer.hid_bad:
                facts.note_lost([f"{'scaled ' * facts.scaled}gradients, replaced"])
            self._ledger.notes.append(
                "the step puts gradients through nan_to_num: they are looked at before that"
            )
        if self._learning is not None and self._learning.ran is None:
            self._learning.ran = observer.modules.names()
            calls = [observer.modules.calls(root) for root in self._target.roots]
            self._learning.forwards = max(calls, default=0)
            if facts.scaled and next(iter(observer.parts), "") == "clip":
                self._learning.clipped_scaled = observer.parts["clip"]
        self._investigation(number).note_observed(observer)

    def _look_into(self, facts: StepFacts, number: int) -> Finding | None:
        """Examines a step when anything about it is suspicious."""
        self._ledger.notes.extend(self._skips.note(facts))
        skipped_by_loop = facts.backwards == 0 and self._backwards_before > 0
        self._backwards_before = max(self._backwards_before, facts.backwards)
        if not self._examines:
            suspicious = bool(facts.suspects)
            self.bad = self._investigation(number).what_is_bad(facts) if suspicious else ()
            if self.bad:
                self.rewind()
            else:
                self._exact_labels.update(facts.suspects)
            return None
        if facts.suspects or skipped_by_loop:
            return self._examine(facts, number, skipped=skipped_by_loop)
        if (
            (facts.skipped or facts.overflowed)
            and self._skips.worth_a_probe()
            and not self._snapshot.missing
        ):
            return self._rewound(self._investigation(number).probe_skip(facts))
        return None

    def _examine(
        self,
        facts: StepFacts,
        number: int,
        error: Exception | None = None,
        skipped: bool = False,
    ) -> Finding | None:
        finding = self._investigation(number).examine(facts, error, skipped)
        if finding is None and error is None:
            self._exact_labels.update(facts.suspects)  # the screen tripped on finite values
        return self._rewound(finding)

    def _rewound(self, finding: Finding | None) -> Finding | None:
        """After a finding the training stands at the start of its step."""
        if finding is not None:
            with uninterrupted():
                self.rewind()
        return finding

    def _replayer(self) -> Replayer:
        before = self._course.ring.previous if self._trials else None
        past = Past(before, self._call_step_before) if before is not None else None
        return Replayer(
            self._target,
            self._snapshot,
            self._course.tape,
            self._optimizers,
            self._scalers,
            self._call_step,
            self._ledger.acquitted,
            past,
            self._course.batches,
            self._hidden_gradients,
        )

    def _investigation(self, number: int) -> Investigation:
        context = StepContext(
            number,
            [self._course.batches.current] if self._course.batches is not None else [],
            self._around.named,
            self._history,
            min(self._backwards_before, 1),
            self._trials,
            self._confirm,
            self._trial_time,
        )
        return Investigation(self._replayer(), self._ledger, self._progress, context)

    # -- for stepping by hand -------------------------------------------------------------------

    def _inside(self, _activity: Activity) -> AbstractContextManager[Any]:
        """What else is in place while a step runs for the first time, not when replayed."""
        return contextlib.nullcontext()

    def _halted(self) -> bool:
        """Whether `run` is to end after this step."""
        return False

    # -- the user's code ------------------------------------------------------------------------

    def _call_step(self) -> Any:
        """The one place where the user's step is called: stacks are cut off here."""
        try:
            if self._course.batches is not None:
                return self._step_fn(self._course.batches.current)
            return self._step_fn()
        except BaseException as error:
            self._raised = error
            raise

    def _call_step_before(self) -> Any:
        if self._course.batches is None:
            return self._call_step()
        self._course.batches.shift(-1)
        try:
            return self._call_step()
        finally:
            self._course.batches.shift(0)

    def _explain_exception(self, error: BaseException) -> None:
        """Says where the step's own exception was raised, and which bad value it goes back to."""
        if not isinstance(error, Exception) or isinstance(error, UsageError):
            return
        note = whence(error, self._course.number, self._target, self._sentinel.activity)
        explained = self._examines and not isinstance(error, torch.OutOfMemoryError)
        if explained and not self._snapshot.missing:
            finding = self._examine(self._sentinel.facts, self._course.number, error)
            if finding is not None:
                culprit = finding.op or finding.tensor or "a value that was bad"
                note += f"; it goes back to {culprit} (nanhunt.last_report())"
        add_note(error, note)

    def _make_sentinel(self, activity: Activity, observer: Observer | None) -> Sentinel:
        sentinel = Sentinel(
            self._target,
            self._snapshot,
            self._optimizers,
            self._scalers,
            observer=observer,
            acquitted=self._ledger.acquitted,
            exact_labels=self._exact_labels,
            activity=activity,
            hidden_gradients=self._hidden_gradients,
            thrown_away=True,
        )
        log, scalers = self._learning, self._scalers
        if log is not None:
            sentinel.after_update = log.after_update
            sentinel.before_backward = lambda: log.before_backward(scalers)
            sentinel.after_backward = log.after_backward
            sentinel.before_zeroing = log.before_zeroing
        return sentinel

    def _installed(self) -> Installed:
        return Installed(self._course.tape, self._around)
