"""Looking into one step: examine it, find out why, try remedies, write everything down."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from nanhunt.core.hunting.examine import Examination, Examiner, attempted, same_end
from nanhunt.core.hunting.ledger import Ledger
from nanhunt.core.hunting.progress import Progress
from nanhunt.core.locate.finding import birth_finding, swallowed_findings
from nanhunt.core.observe.observer import Observer
from nanhunt.core.program.uninterrupted import uninterrupted
from nanhunt.core.snapshot.copies import NoMemoryError
from nanhunt.core.snapshot.snapshot import Snapshot, end_state
from nanhunt.core.tensors.stats import fingerprint
from nanhunt.core.trials.prove import Prover
from nanhunt.core.watch.present import seen_losses
from nanhunt.core.watch.replay import Replayer
from nanhunt.core.watch.step_facts import StepFacts
from nanhunt.records.report import Finding

_BIRTHS_EXPLAINED = 4  # ComplexHalf births that get a replay of their own


class Investigation:
    """Of one step. Where nothing is found the state at the step's end is put back; where
    something is, the caller rewinds to its start.

    Args:
        replayer, examiner: of this step.
        number: of this step.
        ledger: takes findings, notes and costs.
        progress: told what is being done.
        trials: whether to try remedies.
        confirm: further steps to run with the winning one.
        backwards: backward passes that a healthy step has at least.
    """

    def __init__(
        self,
        replayer: Replayer,
        examiner: Examiner,
        number: int,
        ledger: Ledger,
        progress: Progress,
        *,
        trials: bool,
        confirm: int,
        backwards: int,
    ) -> None:
        self._replayer = replayer
        self._examiner = examiner
        self._number = number
        self._ledger = ledger
        self._progress = progress
        self._trials = trials
        self._confirm = confirm
        self._backwards = backwards

    def examine(
        self, facts: StepFacts, error: Exception | None = None, skipped: bool = False
    ) -> Finding | None:
        """Examines a suspicious step.

        Args:
            facts: the step as it was seen.
            error: what it raised, if anything; then nothing is put back here.
            skipped: whether the loop itself left out the backward pass.
        """
        self._progress.show(self._number, self._number, "examining")
        after: list[Snapshot] = []

        def look() -> Examination:
            present = self._replayer.exact_facts()
            facts.sinks = [*facts.sinks, *seen_losses(facts), *present.sinks]
            facts.named = True
            facts.prints = present.prints + _loss_prints(facts)
            after.append(self._end_state())
            return self._examiner.examine(facts, error, skipped)

        return self._investigate(look, facts, after if error is None else [])

    def probe_skip(self, facts: StepFacts) -> Finding | None:
        """A GradScaler skipped: replay with a loss scale of 1, where it ought to be healthy."""
        after: list[Snapshot] = []

        def look() -> Examination:
            after.append(self._end_state())
            seen = self._replayer.exact_facts().prints + _loss_prints(facts)
            probed, _ = self._replayer.replay(scale=1.0)
            if not any(sink.kind == "gradient" for sink in probed.sinks):
                return Examination(None)
            facts.sinks = probed.sinks
            self._ledger.notes.append(
                "GradScaler skipped this step; replayed with a loss scale of 1 the gradients "
                "are still not finite, so lowering the scale will not help"
            )
            again, _ = self._replayer.replay()
            return self._examiner.locate(same_end(seen, again.prints), scale=1.0)

        return self._investigate(look, facts, after, scale=1.0)

    def note_observed(self, observer: Observer) -> None:
        """Takes over warnings and ComplexHalf births of a step that was observed as it ran."""
        explained = 0
        after: list[Snapshot] = []

        def look() -> Examination:
            nonlocal explained
            for warning in swallowed_findings(observer, self._number, frozenset()):
                self._ledger.add(warning)
            if observer.births and not self._replayer.snapshot.missing:
                after.append(self._end_state())
                for birth in observer.births[:_BIRTHS_EXPLAINED]:
                    result = self._examiner.explain_birth(birth, self._number)
                    finding = self._conclude(result)
                    if finding is not None:
                        self._prove(result, finding)
                    explained += 1
            return Examination(None)

        attempted(look, StepFacts(), self._ledger.notes)
        for birth in observer.births[explained:]:
            self._ledger.add(birth_finding(birth, self._number))
        if after:
            with uninterrupted():
                after[0].restore()

    def what_is_bad(self, facts: StepFacts) -> tuple[str, ...]:
        """Names what is not finite at the end of a step whose screens tripped."""
        names: list[str] = []

        def look() -> Examination:
            names.extend(self._replayer.what_is_bad(facts))
            return Examination(None)

        failed = attempted(look, facts, self._ledger.notes).finding is not None
        return tuple(facts.suspects if failed else names)

    def _investigate(
        self,
        look: Callable[[], Examination],
        facts: StepFacts,
        after: list[Snapshot],
        scale: float | None = None,
    ) -> Finding | None:
        """Looks, and tries remedies for what is found; else puts back the step's end, if kept."""
        started = time.perf_counter()
        result = attempted(look, facts, self._ledger.notes)
        finding = self._conclude(result)
        if finding is not None:
            self._note_costs(time.perf_counter() - started)
            return self._prove(result, finding, scale)
        for end in after:
            with uninterrupted():
                end.restore()
        return None

    def _end_state(self) -> Snapshot:
        """The end of the step, to come back to.

        Raises:
            NoMemoryError: there is no room for it, so nothing must be replayed.
        """
        kept = self._replayer.snapshot
        end = end_state(kept)
        if end.missing and not kept.missing:
            raise NoMemoryError(end.missing)
        return end

    def _conclude(self, result: Examination) -> Finding | None:
        self._ledger.acquitted |= set(result.acquitted)
        for warning in result.warnings:
            self._ledger.add(dataclasses.replace(warning, step=self._number))
        if result.finding is None:
            return None
        finding = dataclasses.replace(result.finding, step=self._number)
        if result.replay != "not_needed":
            self._ledger.replay = result.replay
        self._ledger.add(finding)
        return finding

    def _prove(self, result: Examination, finding: Finding, scale: float | None = None) -> Finding:
        """Tries remedies; the finding stands in the ledger already, should this be interrupted."""
        can_replay = not self._replayer.snapshot.missing
        can_replay &= not result.replay.startswith("not_reproduced")
        if result.scene is None or not can_replay or not self._trials:
            return finding
        started, before = time.perf_counter(), self._replayer.replays
        prover = Prover(
            self._replayer,
            result.scene,
            scale=scale,
            backwards=self._backwards,
            confirm=self._confirm,
            tell=lambda what: self._progress.show(self._number, self._number, what),
        )
        try:
            proven = dataclasses.replace(finding, trials=prover.trials(finding))
        except Exception as error:  # noqa: BLE001  the finding stands without trials
            told = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            self._ledger.notes.append(f"remedies could not be tried: {told}")
            return finding
        self._ledger.replace(finding, proven)
        costs = self._ledger.costs
        seconds = time.perf_counter() - started
        costs["trial_seconds"] = costs.get("trial_seconds", 0.0) + seconds
        replays = float(self._replayer.replays - before)
        costs["trial_replays"] = costs.get("trial_replays", 0.0) + replays
        return proven

    def _note_costs(self, seconds: float) -> None:
        self._ledger.costs["examination_seconds"] = seconds
        self._ledger.costs["replays"] = float(self._replayer.replays)
        missing = self._replayer.snapshot.missing
        if missing:
            self._ledger.notes.append(f"{missing}: the step was not undone")


def _loss_prints(facts: StepFacts) -> list[tuple[str, tuple[int, int]]]:
    return [("loss", fingerprint(loss)) for loss in facts.losses]
