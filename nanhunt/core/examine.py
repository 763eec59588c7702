"""Examining a step that went bad: replay it, observe it, and name the first value that mattered."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.causes import explained
from nanhunt.core.flow import Origin, Sink
from nanhunt.core.history import Growth
from nanhunt.core.locate import (
    Outside,
    birth_finding,
    closeup_of,
    finding_of,
    judge,
    swallowed_findings,
)
from nanhunt.core.memory import Item, items
from nanhunt.core.observe import Activity, Observer
from nanhunt.core.oprecords import Birth, OpRecord
from nanhunt.core.scene import Named, Scene
from nanhunt.core.sentinel import Sentinel, StepFacts
from nanhunt.core.state import Snapshot
from nanhunt.core.stats import tensor_stats
from nanhunt.core.tape import Tape
from nanhunt.core.target import Target
from nanhunt.report import Finding

Runner = Callable[[], Any]


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


@dataclasses.dataclass(frozen=True)
class Examination:
    """What replaying a suspicious step showed.

    Attributes:
        finding: the main finding, or None when the suspicion was not confirmed.
        warnings: findings that do not stop a hunt.
        replay: `"bit_exact"`, `"symptom"` or `"not_reproduced: ..."`.
        acquitted: buffers whose infinities are a mask.
        scene: the evidence, for trials.
    """

    finding: Finding | None
    warnings: tuple[Finding, ...] = ()
    replay: str = "not_needed"
    acquitted: tuple[str, ...] = ()
    scene: Scene | None = None


class _NoBatchError(Exception):
    """There is no batch after this one."""


Prints = list[tuple[str, tuple[int, int]]]


def same_end(first: Prints, second: Prints) -> str:
    """Compares the bits of parameters, buffers and optimizer states after two runs of a step."""
    return "bit_exact" if sorted(first) == sorted(second) else "symptom"


class Examiner:
    """Replays one step as often as needed; the caller puts the state back afterwards.

    Args:
        target: the model.
        snapshot: the start of the step.
        tape: the step's batches.
        optimizers, scalers: all that are known.
        run: calls the user's step once.
        acquitted: buffers not to be looked at.
        batches: what the step is given, beside what it takes from iterators itself.
        step: its number.
        growths: what grew in the steps before.
        past: the step before, if it can be run again.
        upcoming: the batches to come, if the hunt hands them out.
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
        batches: Sequence[Any] = (),
        step: int = 0,
        growths: Sequence[Growth] = (),
        past: Past | None = None,
        upcoming: Upcoming | None = None,
    ) -> None:
        self._target = target
        self._snapshot = snapshot
        self._tape = tape
        self._optimizers = optimizers
        self._scalers = scalers
        self._run = run
        self._acquitted = acquitted
        self._batches = batches
        self._step = step
        self._growths = list(growths)
        self.past = past
        self._upcoming = upcoming
        self.replays = 0

    def exact_facts(self) -> StepFacts:
        """Names what is bad in the present, without running anything."""
        with self._sentinel(None, False) as sentinel:
            for optimizer in self._optimizers:
                named = self._target.named_parameters(optimizer)
                grads = [(n, p.grad) for n, p in named if p.grad is not None]
                sentinel._check("gradient", "", grads)
                sentinel._check("parameter", "", named)
                sentinel._check("state", "", self._target.named_state(optimizer))
            return sentinel.finish()

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
        self._snapshot.restore()
        self._tape.rewind()
        self._tape.start_step()
        if scale is not None:
            _set_scales(self._scalers, scale)
        with contextlib.ExitStack() as stack:
            eager = observer is not None or change is not None
            if eager and "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if from_previous and self.past is not None:
                self.past.snapshot.restore()
                self._tape.go_back()
            if change is not None:
                stack.enter_context(change())
            if from_previous and self.past is not None:
                before = self._run_once(None, scale is not None, False, self.past.run)
                self._tape.start_step()
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
            What each of the further steps did; fewer when the data end.
        """
        self._snapshot.restore()
        for optimizer in self._optimizers:  # those that this step did not reach as well
            self._snapshot.before_optimizer(optimizer)
        self._tape.rewind()
        self._tape.start_step()
        if scale is not None:
            _set_scales(self._scalers, scale)
        done: list[StepFacts] = []
        try:
            if from_previous and self.past is not None:
                self.past.snapshot.restore()
                self._tape.go_back()
            with change():
                if from_previous and self.past is not None:
                    self._run_once(None, scale is not None, False, self.past.run)
                    self._tape.start_step()
                self._run_once(None, scale is not None, False)
                for number in range(1, steps + 1):
                    if self._upcoming is not None and not self._upcoming.shift(number):
                        break
                    facts, error = self._run_once(None, scale is not None, False)
                    self.replays += 1
                    if error is not None:
                        facts.suspects.append(type(error).__name__)
                    done.append(facts)
                    if facts.bad:
                        break
        finally:
            if self._upcoming is not None:
                self._upcoming.shift(0)
        return done

    def other_batch(self) -> Callable[[], AbstractContextManager[Any]] | None:
        """A change to `replay` that gives the step the batch after its own, if there is one."""
        upcoming, count = self._upcoming, len(self._tape.items)
        if upcoming is None and not count:
            return None

        @contextlib.contextmanager
        def skipped() -> Iterator[None]:
            if upcoming is None:
                self._tape.drop(count)
            elif not upcoming.shift(1):
                raise _NoBatchError
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
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            try:
                returned = (run or self._run)()
            except Exception as raised:  # noqa: BLE001  the user's own, again
                error = raised
            finish = lambda: sentinel.finish(returned)  # noqa: E731
            facts = observer.quietly(finish) if observer is not None else finish()
        return facts, error

    def examine(
        self, original: StepFacts, error: BaseException | None = None, skipped: bool = False
    ) -> Examination:
        """Replays the step plainly, then observed, and judges what was seen.

        Args:
            original: the step as it was seen first.
            error: what the user's code raised in it, if anything.
            skipped: whether the loop itself left out the backward pass this time.
        """
        if self._snapshot.missing:
            return self._without_replay(original)
        plain, plain_error = self.replay()
        quiet = not plain.bad and not original.sinks
        if quiet and error is None and not skipped:
            return Examination(None)  # the screen tripped on finite values
        if not plain.bad and plain_error is None and not skipped:
            return self._not_reproduced(original)
        return self.locate(same_end(original.prints, plain.prints), sinks_wanted=plain)

    def locate(
        self, replay: str, *, scale: float | None = None, sinks_wanted: StepFacts | None = None
    ) -> Examination:
        """Observes the step and describes what it finds."""
        observer = Observer(self._target, Activity(), calls=True)
        facts, _ = self.replay(observer, scale=scale)
        protected = self._never_masks(observer)
        verdict = judge(observer, facts, protected)
        warnings = tuple(swallowed_findings(observer, self._step, protected))
        if verdict.origin is None:
            if sinks_wanted is not None and sinks_wanted.sinks and self._target.compiled:
                finding = _compiler_finding(sinks_wanted)
                return Examination(finding, warnings, replay, verdict.acquitted)
            return Examination(None, warnings, replay, verdict.acquitted)
        scene = self._look_closely(verdict.origin.record, scale)
        scene.plain_step_with_scaler = facts.plain_step_with_scaler
        scene.origin = verdict.origin
        scene.outside = self._outside(observer, verdict.origin)
        scene.finding = finding_of(verdict, self._step, scene.closeup, scene.outside)
        return Examination(explained(scene), warnings, replay, verdict.acquitted, scene)

    def explain_birth(self, birth: Birth, step: int) -> Examination:
        """Looks closely at an operation that made ComplexHalf."""
        scene = self._look_closely(birth.record, None)
        scene.finding = birth_finding(birth, step)
        return Examination(explained(scene), scene=scene)

    def _look_closely(self, record: OpRecord | None, scale: float | None) -> Scene:
        """Observes the step once more for everything about one operation."""
        scene = Scene(growths=self._growths, optimizers=self._optimizers, scalers=self._scalers)
        scene.closeup = closeup_of(record)
        if scene.closeup is not None:
            observer = Observer(self._target, Activity(), closeup=scene.closeup)
            self.replay(observer, scale=scale)
            scene.closeup.release()
            self._snapshot.restore()
            scene.named = self._named(observer)
        self._snapshot.restore()
        return scene

    def _sentinel(
        self, observer: Observer | None, count_skipped: bool, keep_gradients: bool = False
    ) -> Sentinel:
        return Sentinel(
            self._target,
            self._snapshot,  # a change may make the step reach an update it had not reached
            self._optimizers,
            self._scalers,
            exact=True,
            count_skipped=count_skipped,
            keep_gradients=keep_gradients,
            observer=observer,
            acquitted=self._acquitted,
            activity=observer.activity if observer is not None else None,
        )

    def _without_replay(self, original: StepFacts) -> Examination:
        if not original.sinks and not original.suspects:
            return Examination(None)
        reason = self._snapshot.missing or "the state could not be put back"
        return Examination(sink_finding(original), (), f"not_reproduced: {reason}")

    def _not_reproduced(self, original: StepFacts) -> Examination:
        reason = "the same step was healthy when it was run again"
        if self._snapshot.lost:
            reason = "a tensor was written that never had been before, and could not be put back"
        return Examination(sink_finding(original), (), f"not_reproduced: {reason}")

    # -- names of memory ----------------------------------------------------------------------

    def _memory(self) -> list[Item]:
        batches = [*self._batches, *(batch for batch, _, _ in self._tape.items)]
        return list(items(self._target, self._optimizers, batches))

    def _never_masks(self, observer: Observer) -> frozenset[int]:
        keys = set()
        for item in self._memory():
            if item.role in ("parameter", "state", "gradient") or item.is_statistic:
                region = observer.storages.region(item.tensor)
                if region is not None:
                    keys.add(region.key)
        return frozenset(keys)

    def _outside(self, observer: Observer, origin: Origin) -> Outside | None:
        if not origin.external or origin.value is None or origin.value.region is None:
            return None
        for item in self._memory():
            region = observer.storages.region(item.tensor)
            if region is not None and region.overlaps(origin.value.region):
                stats = tensor_stats(item.tensor, item.name)
                return Outside(item.role, item.name, item.module, stats)
        return None

    def _named(self, observer: Observer) -> dict[int, Named]:
        """What the step starts from, by storage, with its values at the start."""
        named: dict[int, Named] = {}
        for item in self._memory():
            region = observer.storages.region(item.tensor)
            if region is not None and item.role != "gradient":
                stats = tensor_stats(item.tensor, item.name)
                named.setdefault(region.key, Named(item.role, item.name, stats))
        return named


def _set_scales(scalers: list[GradScaler], scale: float) -> None:
    for scaler in scalers:
        if scaler._scale is not None:
            scaler._scale.fill_(scale)
        scaler._init_scale = scale


def sink_finding(facts: StepFacts) -> Finding:
    """A finding that only says what was bad at the end, for a step that cannot be replayed."""
    sinks: list[Sink] = facts.sinks
    phases = {"loss": "forward", "gradient": "backward", "parameter": "optimizer"}
    first = sinks[0] if sinks else None
    names = [str(sink) for sink in sinks[:12]] or facts.suspects
    return Finding(
        severity="critical",
        kind="nan" if first is None or first.nan else "inf",
        phase=phases.get(first.kind, "state") if first else "forward",
        step=0,
        tensor=first.name if first and first.kind in ("parameter", "buffer", "state") else None,
        reaches=tuple(names),
        explanation="It was seen at the end of the step; which operation made it is not known.",
    )


def _compiler_finding(facts: StepFacts) -> Finding:
    return dataclasses.replace(
        sink_finding(facts),
        cause="compiler_only",
        explanation="The step fails as compiled by torch.compile and is healthy when the same "
        "code runs eagerly: the failure comes from the compiler.",
    )
