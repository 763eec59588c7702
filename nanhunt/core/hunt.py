"""The hunt: run the user's steps under watch, stop at the first bad one, and examine it."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.examine import Examination, Examiner
from nanhunt.core.locate import birth_finding, swallowed_findings
from nanhunt.core.observe import Activity, Observer
from nanhunt.core.progress import Progress
from nanhunt.core.raised import note_for
from nanhunt.core.sentinel import Sentinel, StepFacts
from nanhunt.core.shield import uninterrupted
from nanhunt.core.skips import SkipWatch
from nanhunt.core.state import Snapshot, end_state
from nanhunt.core.surroundings import Surroundings, optimizers_in_memory
from nanhunt.core.tape import Tape, TapedIterator
from nanhunt.core.target import Target
from nanhunt.errors import (
    HuntClosedError,
    NoBackwardError,
    NoOptimizerError,
    StepFunctionError,
    UsageError,
)
from nanhunt.report import Finding, Report

_last_report: Report | None = None


def hunt(model: Any, step_fn: Callable[..., Any], **options: Any) -> Report:
    """Runs a training step again and again until something goes bad, and says what and where.

    Args:
        model: a module, or a dict or sequence of modules (generator and discriminator).
        step_fn: one training step; takes no argument, or one batch when `data` is given.
            It may return the loss (tensor or float), a dict with a loss, or nothing.
        **options: see `Hunt`; `steps` (default 100) is how many steps to run at most.

    Returns:
        The report. After a failure the training stands at the start of the failing step.

    Raises:
        UsageError: the call cannot work as written; nothing has been changed.
        Exception: whatever the user's step raises, with a note where it happened; what had
            been found by then is `nanhunt.last_report()`.

    Example:
        >>> import torch, nanhunt
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> x = torch.tensor([[1.0, -1.0]])
        >>> def step():
        ...     optimizer.zero_grad()
        ...     loss = (model(x) * 0).log().mean()
        ...     loss.backward()
        ...     optimizer.step()
        >>> nanhunt.hunt(model, step, steps=3).finding.op
        'aten.log.default'
    """
    steps = options.pop("steps", 100)
    with Hunt(model, step_fn, **options) as started:
        return started.run(steps)


def last_report() -> Report | None:
    """The report of the last hunt, also of one that ended with an exception."""
    return _last_report


class Hunt:
    """A hunt that can be stepped by hand.

    Args:
        model, step_fn: as in `hunt`.
        optimizer: an optimizer or several; found by itself if None. `()` says that the step
            updates parameters without one.
        scaler: a GradScaler or several; found by itself if None.
        data: iterable of batches; `step_fn` then takes one.
        complex_half: observe the first step's operations for ComplexHalf births.
        snapshot: keep the state before each step, so that it can be undone and replayed.
        progress: True for a line on a terminal, or a callable
            `(steps_done, steps_total, what)`, called at most ten times a second.

    Attributes:
        report: the report of what has been found so far.
        steps_run: number of steps run.
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
        progress: bool | Callable[[int, int, str], None] = True,
    ) -> None:
        self._target = Target(model)
        _check_step_fn(step_fn, data is not None)
        self._step_fn = step_fn
        self._tape = Tape()
        self._data = TapedIterator(iter(data), self._tape) if data is not None else None
        self._around = Surroundings(step_fn)
        self._by_hand = isinstance(optimizer, tuple | list) and not optimizer
        given = _listed(optimizer, Optimizer, "optimizer")
        found = given or [o for o in self._around.optimizers if self._target.owns(o)]
        self._optimizers = found or [o for o in optimizers_in_memory() if self._target.owns(o)]
        self._scalers = _listed(scaler, GradScaler, "scaler") or self._around.scalers
        self._snapshot = Snapshot(
            self._target, self._around, self._optimizers, self._scalers, snapshot
        )
        self._complex_half = complex_half
        self._progress = Progress(progress)
        self._skips = SkipWatch()
        self._acquitted = _written_masks(self._target)
        self._exact_labels: set[str] = set()
        self._backwards_before = 0
        self._closed = False
        self._findings: list[Finding] = []
        self._notes: list[str] = []
        self._replay = "not_needed"
        self._step_seconds: list[float] = []
        self._costs: dict[str, float] = {}
        self.interrupted = False
        self.steps_run = 0

    def __enter__(self) -> Hunt:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the public face ------------------------------------------------------------------------

    def run(self, steps: int = 100) -> Report:
        """Runs up to `steps` steps; ends at the first numeric failure or at Ctrl-C."""
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise UsageError(f"steps must be a whole number of at least 1, not {steps!r}")
        try:
            for done in range(steps):
                self._progress.show(done, steps, "watching")
                if self.step() is not None:
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        except _DataEnded:
            self._notes.append(f"the data ended after {self.steps_run} steps")
        finally:
            self._progress.finish(self.steps_run, steps)
        return self.report

    def step(self) -> Finding | None:
        """Runs one step; returns the finding when it went bad, and has then undone it.

        Raises:
            KeyboardInterrupt: after the step was undone.
            Exception: the step's own, with a note; the step was undone.
        """
        if self._closed:
            raise HuntClosedError("this hunt is closed; make a new nanhunt.Hunt")
        self._tape.start_step()
        self._snapshot.begin()
        try:
            with self._installed():
                try:
                    return self._step()
                except BaseException as error:
                    if isinstance(error, Exception) and not isinstance(error, UsageError):
                        self._explain_exception(error)
                    with uninterrupted():
                        self.rewind()
                    raise
        finally:
            self._publish()

    def rewind(self) -> None:
        """Puts everything back to the start of the last step; its batches come again."""
        self._snapshot.restore()
        self._tape.rewind()

    def close(self) -> None:
        """Lets go of everything that was kept. The training goes on where it stands."""
        if not self._closed:
            self._closed = True
            self._snapshot.release()
            self._tape = Tape()
            self._publish()

    @property
    def report(self) -> Report:
        """What has been found so far."""
        critical_first = sorted(self._findings, key=_importance)
        costs = dict(self._costs)
        if self._step_seconds:
            costs["watched_step_seconds"] = sorted(self._step_seconds)[
                len(self._step_seconds) // 2
            ]
        return Report(
            steps_run=self.steps_run,
            findings=tuple(critical_first),
            replay=self._replay,
            interrupted=self.interrupted,
            title=self._target.title(),
            notes=tuple(dict.fromkeys(self._notes)),
            environment=_environment(self._target),
            costs=costs,
        )

    # -- one step -------------------------------------------------------------------------------

    def _step(self) -> Finding | None:
        number = self.steps_run
        observed = number == 0 and self._complex_half and not self._target.compiled
        activity = Activity()
        observer = Observer(self._target, activity) if observed else None
        self._sentinel = self._make_sentinel(activity, observer)
        if self._data is not None:
            self._batch = self._next_batch()
        started = time.perf_counter()
        with self._sentinel:
            if observer is not None:
                with observer:
                    returned = self._call_step()
                    facts = observer.quietly(lambda: self._sentinel.finish(returned))
            else:
                facts = self._sentinel.finish(self._call_step())
        seconds = time.perf_counter() - started
        self.steps_run += 1
        if observer is not None:
            self._costs["observed_step_seconds"] = seconds
            self._note_births(observer, number)
        else:
            self._step_seconds.append(seconds)
        finding = self._look_into(facts, number)
        if finding is None:
            self._check_usage(facts, number)
            self._snapshot.settle()
            if number == 0:
                self._target.refresh()
        return finding

    def _look_into(self, facts: StepFacts, number: int) -> Finding | None:
        """Examines a step when anything about it is suspicious."""
        self._notes.extend(self._skips.note(facts))
        skipped_by_loop = facts.backwards == 0 and self._backwards_before > 0
        self._backwards_before = max(self._backwards_before, facts.backwards)
        if facts.suspects or skipped_by_loop:
            return self._examine(facts, number)
        if facts.skipped and self._skips.worth_a_probe() and not self._snapshot.missing:
            return self._probe_skip(number)
        return None

    def _examine(
        self, facts: StepFacts, number: int, error: Exception | None = None
    ) -> Finding | None:
        self._progress.show(number, number, "examining")
        started = time.perf_counter()
        examiner = self._examiner()
        present = examiner.exact_facts()
        facts.sinks = [*facts.sinks, *present.sinks]
        facts.prints = present.prints + [p for p in _loss_prints(facts)]
        after = end_state(self._snapshot)
        result = examiner.examine(facts, error)
        finding = self._conclude(result, number, facts)
        if finding is None and error is None:
            with uninterrupted():
                after.restore()
            self._exact_labels.update(facts.suspects)
        elif finding is not None:
            self._note_examination(result, examiner, time.perf_counter() - started)
            with uninterrupted():
                self.rewind()
        return finding

    def _probe_skip(self, number: int) -> Finding | None:
        """A GradScaler skipped: replay with a loss scale of 1, where it ought to be healthy."""
        started = time.perf_counter()
        examiner = self._examiner()
        after = end_state(self._snapshot)
        facts, _ = examiner.replay(scale=1.0)
        gradients = [sink for sink in facts.sinks if sink.kind == "gradient"]
        finding = None
        if gradients:
            result = examiner.locate("symptom", scale=1.0)
            finding = self._conclude(result, number, facts)
            if finding is not None:
                self._notes.append(
                    "GradScaler skipped this step; replayed with a loss scale of 1 the gradients "
                    "are still not finite, so lowering the scale will not help"
                )
                self._note_examination(result, examiner, time.perf_counter() - started)
        with uninterrupted():
            if finding is None:
                after.restore()
            else:
                self.rewind()
        return finding

    def _conclude(self, result: Examination, number: int, facts: StepFacts) -> Finding | None:
        self._acquitted |= set(result.acquitted)
        for warning in result.warnings:
            self._add(dataclasses.replace(warning, step=number))
        if result.finding is None:
            return None
        finding = dataclasses.replace(result.finding, step=number)
        self._replay = result.replay
        self._add(finding)
        return finding

    def _note_examination(self, result: Examination, examiner: Examiner, seconds: float) -> None:
        self._costs["examination_seconds"] = seconds
        self._costs["replays"] = float(examiner.replays)
        if self._snapshot.missing:
            self._notes.append(f"{self._snapshot.missing}: the step was not undone")

    def _note_births(self, observer: Observer, number: int) -> None:
        seen = set()
        for birth in observer.births:
            finding = birth_finding(birth, number)
            key = (finding.op, finding.module, finding.source)
            if key not in seen:
                seen.add(key)
                self._add(finding)
        for warning in swallowed_findings(observer, number, frozenset()):
            self._add(warning)

    def _add(self, finding: Finding) -> None:
        same = (finding.kind, finding.op, finding.module, finding.source, finding.severity)
        known = [(f.kind, f.op, f.module, f.source, f.severity) for f in self._findings]
        if same not in known:
            self._findings.append(finding)

    def _examiner(self) -> Examiner:
        return Examiner(
            self._target,
            self._snapshot,
            self._tape,
            self._optimizers,
            self._scalers,
            self._replayed_step,
            self._acquitted,
        )

    # -- the user's code ------------------------------------------------------------------------

    def _replayed_step(self) -> Any:
        if self._data is not None:
            self._batch = self._next_batch()
        return self._call_step()

    def _call_step(self) -> Any:
        """The one place where the user's step is called: stacks are cut off here."""
        if self._data is not None:
            return self._step_fn(self._batch)
        return self._step_fn()

    def _next_batch(self) -> Any:
        assert self._data is not None
        try:
            return next(self._data)
        except StopIteration:
            raise _DataEnded from None

    def _explain_exception(self, error: Exception) -> None:
        note = note_for(error, self.steps_run, self._target, self._sentinel.activity)
        if not self._snapshot.missing and not isinstance(error, torch.OutOfMemoryError):
            finding = self._examine(self._sentinel.facts, self.steps_run, error)
            if finding is not None:
                note += f"; it goes back to {finding.op or finding.tensor} (nanhunt.last_report())"
        if isinstance(error, _DataEnded):
            return
        if hasattr(error, "add_note"):
            error.add_note(note)
        else:  # Python 3.10 has no add_note; tracebacks there do not show notes
            error.__notes__ = [note]  # type: ignore[attr-defined]

    def _check_usage(self, facts: StepFacts, number: int) -> None:
        """After a healthy first step: does this look like training at all?"""
        if number > 0 or not self._target.training or self._by_hand:
            return
        if not facts.backwards:
            raise NoBackwardError(
                "step_fn never called backward() although the model is in training mode. Call "
                "loss.backward() inside step_fn, or call model.eval() first if this is meant to "
                "be an evaluation step."
            )
        if not self._optimizers:
            raise NoOptimizerError(
                "no optimizer holds a parameter of this model, so nothing is trained. Build the "
                "optimizer from model.parameters() and step it inside step_fn, or pass "
                "optimizer=() if the step updates parameters by hand."
            )

    def _make_sentinel(self, activity: Activity, observer: Observer | None) -> Sentinel:
        return Sentinel(
            self._target,
            self._snapshot,
            self._optimizers,
            self._scalers,
            observer=observer,
            acquitted=self._acquitted,
            exact_labels=self._exact_labels,
            activity=activity,
        )

    def _installed(self) -> _Installed:
        return _Installed(self._tape, self._around)

    def _publish(self) -> None:
        global _last_report
        _last_report = self.report


class _DataEnded(Exception):
    """The iterable given as `data` has no more batches."""


class _Installed:
    """DataLoader patch and wrapped iterators, for the duration of one step and its replays."""

    def __init__(self, tape: Tape, around: Surroundings) -> None:
        self._tape = tape
        self._around = around
        self._wrapped: list[tuple[Any, TapedIterator]] = []

    def __enter__(self) -> None:
        with uninterrupted():
            self._tape.install()
            for slot in self._around.iterators:
                wrapper = TapedIterator(slot.get(), self._tape)
                slot.put(wrapper)
                self._wrapped.append((slot, wrapper))

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            self._tape.remove()
            for slot, wrapper in self._wrapped:
                if slot.get() is wrapper:
                    slot.put(wrapper.inner)


def _check_step_fn(step_fn: Any, takes_batch: bool) -> None:
    if not callable(step_fn):
        raise StepFunctionError(
            f"step_fn is of type {type(step_fn).__name__} and cannot be called. Pass the function "
            "itself, without parentheses."
        )
    try:
        signature = inspect.signature(step_fn)
    except (TypeError, ValueError):  # some built-in callables have none
        return
    try:
        signature.bind(*([None] if takes_batch else []))
    except TypeError as error:
        wanted = "one batch" if takes_batch else "no argument"
        hint = (
            "Give it exactly one parameter."
            if takes_batch
            else "Wrap it (`lambda: step(batch)`), or pass data= so that each call gets a batch."
        )
        raise StepFunctionError(
            f"step_fn{signature} must take {wanted} here ({error}). {hint}"
        ) from None


def _listed(given: Any, kind: type[Any], name: str) -> list[Any]:
    if given is None:
        return []
    items = list(given) if isinstance(given, list | tuple) else [given]
    for item in items:
        if not isinstance(item, kind):
            raise UsageError(
                f"{name} is of type {type(item).__name__}, not a {kind.__module__}.{kind.__name__}"
            )
    return items


def _written_masks(target: Target) -> set[str]:
    """Buffers that are not finite before the hunt begins; they count only if something reads them."""
    from nanhunt.core.stats import is_bad

    return {
        name
        for name, buffer in target.buffers()
        if is_bad(buffer) and name.rpartition(".")[2] not in ("running_mean", "running_var")
    }


def _loss_prints(facts: StepFacts) -> list[tuple[str, tuple[int, int]]]:
    from nanhunt.core.stats import fingerprint

    return [("loss", fingerprint(loss)) for loss in facts.losses]


def _importance(finding: Finding) -> tuple[bool, bool, int]:
    return finding.severity != "critical", finding.kind == "complex_half", finding.step


def _environment(target: Target) -> dict[str, str]:
    devices = sorted({str(p.device) for p in target.parameters.values()})
    return {"torch": torch.__version__, "devices": ", ".join(devices)}
