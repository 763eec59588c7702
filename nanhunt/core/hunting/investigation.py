"""The investigation of one step: replay it, find what was bad first, explain it, try remedies."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.causes import explained
from nanhunt.core.causes.scene import Scene
from nanhunt.core.hunting.ledger import Ledger
from nanhunt.core.hunting.own_failures import noted
from nanhunt.core.hunting.progress import Progress
from nanhunt.core.locate.finding import (
    birth_finding,
    closeup_of,
    finding_of,
    judge,
    sink_finding,
    swallowed_findings,
)
from nanhunt.core.locate.starting_tensors import StartingTensors, array_made_tensor
from nanhunt.core.observe.observer import Activity, Observer
from nanhunt.core.observe.op_records import OpRecord
from nanhunt.core.snapshot.copies import NoMemoryError
from nanhunt.core.snapshot.snapshot import Snapshot, end_state
from nanhunt.core.tensors.stats import fingerprint
from nanhunt.core.trials.prove import Prover, TimeLimit
from nanhunt.core.watch.magnitudes import History
from nanhunt.core.watch.present import seen_losses
from nanhunt.core.watch.replay import Replayer
from nanhunt.core.watch.step_facts import StepFacts
from nanhunt.records.report import Finding

_BIRTHS_EXPLAINED = 4  # ComplexHalf births that get a replay of their own
FAILED = "the step could not be examined"


@dataclasses.dataclass(frozen=True)
class StepContext:
    """What is known of the step at hand besides what its replays show.

    Attributes:
        step: its number.
        batches: what it is given, beside what it takes from iterators itself.
        variables: tensors in variables of the step function, by their names.
        history: how large things were in the steps before.
        backwards: backward passes that a healthy step has at least.
        trials: whether to try remedies.
        confirm: further steps to run with each that cures.
        limit: of time, for all trials of the hunt.
    """

    step: int
    batches: Sequence[Any] = ()
    variables: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    history: History = dataclasses.field(default_factory=History)
    backwards: int = 0
    trials: bool = True
    confirm: int = 0
    limit: TimeLimit = dataclasses.field(default_factory=TimeLimit)


class Investigation:
    """Of one step. Where nothing is found the state at the step's end is put back; where
    something is, the caller rewinds to its start.

    What was seen of the step stays seen when the investigation itself fails: the finding then
    says what was bad, and a note says what failed.

    Args:
        replayer: runs the step again.
        ledger: takes findings, notes and costs.
        progress: told what is being done.
        context: what else is known.
    """

    def __init__(
        self, replayer: Replayer, ledger: Ledger, progress: Progress, context: StepContext
    ) -> None:
        self._replayer = replayer
        self._ledger = ledger
        self._progress = progress
        self._context = context
        self._target = replayer.target
        self._snapshot = replayer.snapshot
        self._starting = StartingTensors(
            self._target,
            replayer.optimizers,
            lambda: [*context.batches, *(batch for batch, _, _ in replayer.tape.items)],
            context.variables,
        )
        self._replay = "not_needed"
        self._calls = True  # whether calls above autograd are noted
        self._observed_bad = False
        self._scene: Scene | None = None  # of the last finding: the evidence, for trials

    # -- what can be asked of a step --------------------------------------------------------------

    def examine(
        self, facts: StepFacts, error: Exception | None = None, skipped: bool = False
    ) -> Finding | None:
        """Examines a suspicious step.

        Args:
            facts: the step as it was seen.
            error: what it raised, if anything; then nothing is put back here.
            skipped: whether the loop itself left out the backward pass.
        """
        self._progress.show(self._context.step, self._context.step, "examining")
        started = time.perf_counter()
        finding, end = None, None
        with noted(self._ledger.notes, FAILED) as failed:
            present = self._replayer.exact_facts()
            facts.sinks = [*facts.sinks, *seen_losses(facts), *present.sinks]
            facts.named = True
            facts.prints = present.prints + _loss_prints(facts)
            end = self._end_state()
            finding = self._explain(facts, error, skipped)
        if failed:
            finding = self.seen(facts, failed[0])
        return self._conclude(finding, started, end if error is None else None)

    def probe_skip(self, facts: StepFacts) -> Finding | None:
        """A GradScaler skipped, or the loop lost scaled gradients that were not finite.

        Replayed with a loss scale of 1 the step ought to be healthy.
        """
        started = time.perf_counter()
        finding, end = None, None
        with noted(self._ledger.notes, FAILED) as failed:
            end = self._end_state()
            seen = self._replayer.exact_facts().prints + _loss_prints(facts)
            probed, _ = self._replayer.replay(scale=1.0)
            if any(sink.kind == "gradient" for sink in probed.sinks):
                facts.sinks = probed.sinks
                what = "GradScaler skipped this step" if facts.skipped else facts.overflowed[0]
                self._ledger.notes.append(
                    f"{what}; replayed with a loss scale of 1 the gradients "
                    "are still not finite, so lowering the scale will not help"
                )
                again, _ = self._replayer.replay()
                finding = self.locate(_same_end(seen, again.prints), scale=1.0)
        if failed:
            finding = self.seen(facts, failed[0])
        return self._conclude(finding, started, end, scale=1.0)

    def note_observed(self, observer: Observer) -> None:
        """Takes over warnings and ComplexHalf births of a step that was observed as it ran."""
        births, explained_births, end = observer.births, 0, None
        with noted(self._ledger.notes, FAILED):
            for warning in swallowed_findings(observer, self._context.step, frozenset()):
                self._ledger.add(warning)
            step = self._context.step
            births = [b for b in observer.births if not self._ledger.knows(birth_finding(b, step))]
            if births and not self._snapshot.missing:
                end = self._end_state()
                for birth in births[:_BIRTHS_EXPLAINED]:
                    scene = self._look_closely(birth.record, None)
                    scene.finding = birth_finding(birth, self._context.step)
                    self._scene = scene
                    finding = explained(scene)
                    self._ledger.add(finding)
                    self._prove(finding)
                    explained_births += 1
        for birth in births[explained_births:]:
            self._ledger.add(birth_finding(birth, self._context.step))
        if end is not None:
            with uninterrupted():
                end.restore()

    def what_is_bad(self, facts: StepFacts) -> tuple[str, ...]:
        """Names what is not finite at the end of a step whose screens tripped."""
        names: tuple[str, ...] = ()
        with noted(self._ledger.notes, FAILED) as failed:
            names = self._replayer.what_is_bad(facts)
        if failed and self.seen(facts, failed[0]) is not None:
            return tuple(facts.suspects)
        return names

    # -- replays ----------------------------------------------------------------------------------

    def locate(
        self,
        replay: str,
        *,
        scale: float | None = None,
        wanted: StepFacts | None = None,
        error: BaseException | None = None,
    ) -> Finding | None:
        """Replays the step under observation and describes what it finds.

        Args:
            replay: how the step compares with its replay.
            scale: the loss scale, if not the scaler's own.
            wanted: what a replay without observation showed.
            error: what the step raises, if anything.

        Raises:
            Exception: what the replay raised instead, before anything bad was seen in it.
        """
        self._replay = replay
        observer = Observer(self._target, Activity(), calls=self._calls)
        facts, raised = self._replayer.replay(observer, scale=scale)
        if raised is not None and not facts.bad and type(raised) is not type(error):
            raise raised
        self._observed_bad = facts.bad
        step, protected = self._context.step, self._starting.never_masks(observer)
        verdict = judge(observer, facts, protected)
        self._ledger.acquitted |= set(verdict.acquitted)
        for warning in swallowed_findings(observer, step, protected):
            self._ledger.add(warning)
        if verdict.origin is None:
            if wanted is not None and wanted.sinks and self._target.compiled:
                return explained(Scene(finding=sink_finding(wanted, step), only_compiled=True))
            return None
        scene = self._look_closely(verdict.origin.record, scale)
        scene.plain_step_with_scaler = facts.plain_step_with_scaler
        scene.scaled_twice = facts.scaled_twice
        scene.origin = verdict.origin
        outside = self._starting.outside(observer, verdict.origin)
        scene.outside = outside or array_made_tensor(verdict.origin, scene.closeup)
        scene.finding = finding_of(verdict, step, scene.closeup, scene.outside)
        self._scene = scene
        return explained(scene)

    def _explain(
        self, facts: StepFacts, error: BaseException | None, skipped: bool
    ) -> Finding | None:
        """Replays the step plainly, then observed."""
        if self._snapshot.missing:
            if not facts.sinks and not facts.suspects:
                return None
            return self.not_reproduced(facts, self._snapshot.missing)
        plain, plain_error = self._replayer.replay()
        if plain_error is not None and not plain.bad and type(plain_error) is not type(error):
            raise plain_error
        quiet = not plain.bad and not facts.sinks
        if quiet and error is None and not skipped:
            return None  # the screen tripped on finite values
        if quiet and plain_error is None and not skipped:
            self._ledger.notes.append("the exception did not come again in a replay of the step")
            return None  # a connection that failed once, and nothing was bad
        if not plain.bad and plain_error is None and not skipped:
            reason = "the same step was healthy when it was run again"
            if self._snapshot.lost:
                reason = (
                    "a tensor was written that never had been before, and could not be put back"
                )
            return self.not_reproduced(facts, reason)
        end = _same_end(facts.prints, plain.prints)
        finding = self.locate(end, wanted=plain, error=error)
        if finding is None and plain.bad and not self._observed_bad:
            finding = self._locate_below(end, plain, error)
        known = (sink.name in self._ledger.acquitted for sink in facts.sinks)
        if finding is None and error is None and not all(known):
            if self._observed_bad:
                return sink_finding(facts, self._context.step)
            return self.not_reproduced(
                facts, "watched operation by operation the step took another path and was healthy"
            )
        return finding

    def _locate_below(
        self, end: str, plain: StepFacts, error: BaseException | None
    ) -> Finding | None:
        """Locates without noting calls, for which torch's encoder leaves out its fused path.

        No remedy is tried then: it would patch a call, and so change the path as well.
        """
        self._calls = False
        finding = self.locate(end, wanted=plain, error=error)
        self._calls, self._scene = True, None
        if finding is not None:
            self._ledger.notes.append(
                "the step was healthy while calls were watched, since torch left out a fused "
                "path: only operations were watched, and no remedy was tried"
            )
        return finding

    def _look_closely(self, record: OpRecord | None, scale: float | None) -> Scene:
        """Observes the step once more for everything about one operation."""
        scene = Scene(
            growths=self._context.history.growths(),
            optimizers=self._replayer.optimizers,
            scalers=self._replayer.scalers,
        )
        scene.closeup = closeup_of(record)
        if scene.closeup is not None:
            observer = Observer(self._target, Activity(), calls=self._calls, closeup=scene.closeup)
            self._replayer.replay(observer, scale=scale)
            scene.closeup.release()
            self._snapshot.restore()
            scene.named = self._starting.named(observer)
        self._snapshot.restore()
        return scene

    def _end_state(self) -> Snapshot:
        """The end of the step, to come back to.

        Raises:
            NoMemoryError: there is no room for it, so nothing must be replayed.
        """
        end = end_state(self._snapshot)
        if end.missing and not self._snapshot.missing:
            raise NoMemoryError(end.missing)
        return end

    # -- what comes of it -------------------------------------------------------------------------

    def seen(self, facts: StepFacts, failure: Exception) -> Finding | None:
        """After a failure of the investigation itself: what was bad, if anything was."""
        if not facts.sinks and (facts.named or not facts.suspects):
            return None
        return self.not_reproduced(facts, f"the examination ended in {type(failure).__name__}")

    def not_reproduced(self, facts: StepFacts, reason: str) -> Finding:
        """A finding of what was seen, where no replay shows it."""
        self._replay, self._scene = f"not_reproduced: {reason}", None
        return sink_finding(facts, self._context.step)

    def record(self, finding: Finding) -> None:
        """Puts a finding into the ledger, with how it was replayed."""
        if self._replay != "not_needed":
            self._ledger.replay = self._replay
        self._ledger.add(finding)

    def _conclude(
        self,
        finding: Finding | None,
        started: float,
        end: Snapshot | None,
        scale: float | None = None,
    ) -> Finding | None:
        """Records what was found and tries remedies; or puts the step's end back, if given."""
        if finding is None:
            if end is not None:
                with uninterrupted():
                    end.restore()
            return None
        self.record(finding)
        self._ledger.costs["examination_seconds"] = time.perf_counter() - started
        self._ledger.costs["replays"] = float(self._replayer.replays)
        if self._snapshot.missing:
            self._ledger.notes.append(f"{self._snapshot.missing}: the step was not undone")
        return self._prove(finding, scale)

    def _prove(self, finding: Finding, scale: float | None = None) -> Finding:
        """Tries remedies; the finding stands in the ledger already, should this be interrupted."""
        scene, context = self._scene, self._context
        if scene is None or self._snapshot.missing or not context.trials:
            return finding
        started, before = time.perf_counter(), self._replayer.replays
        prover = Prover(
            self._replayer,
            scene,
            scale=scale,
            backwards=context.backwards,
            confirm=context.confirm,
            limit=context.limit,
            history=context.history,
            tell=lambda what: self._progress.show(context.step, context.step, what),
        )
        proven = finding
        with noted(self._ledger.notes, "remedies could not be tried"):
            proven = dataclasses.replace(finding, trials=prover.trials(finding))
            self._ledger.replace(finding, proven)
            seconds = time.perf_counter() - started
            self._ledger.add_cost("trial_seconds", seconds)
            self._ledger.add_cost("trial_replays", self._replayer.replays - before)
        return proven


def _same_end(
    first: list[tuple[str, tuple[int, int]]], second: list[tuple[str, tuple[int, int]]]
) -> str:
    """Compares the bits of parameters, buffers and optimizer states after two runs of a step."""
    return "bit_exact" if sorted(first) == sorted(second) else "symptom"


def _loss_prints(facts: StepFacts) -> list[tuple[str, tuple[int, int]]]:
    return [("loss", fingerprint(loss)) for loss in facts.losses]
