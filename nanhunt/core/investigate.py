"""Looking into one step: examine it, find out why, try remedies, write everything down."""

from __future__ import annotations

import dataclasses
import time

from nanhunt.core.examine import Examination, Examiner, same_end
from nanhunt.core.findings import Ledger
from nanhunt.core.locate import birth_finding
from nanhunt.core.oprecords import Birth
from nanhunt.core.progress import Progress
from nanhunt.core.replay import Replayer
from nanhunt.core.sentinel import StepFacts
from nanhunt.core.shield import uninterrupted
from nanhunt.core.state import end_state
from nanhunt.core.stats import fingerprint
from nanhunt.core.trials.prove import Prover
from nanhunt.report import Finding

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
        started = time.perf_counter()
        present = self._replayer.exact_facts()
        facts.sinks = [*facts.sinks, *present.sinks]
        facts.prints = present.prints + _loss_prints(facts)
        after = end_state(self._replayer.snapshot)
        result = self._examiner.examine(facts, error, skipped)
        finding = self._conclude(result)
        if finding is not None:
            self._note_costs(time.perf_counter() - started)
            return self._prove(result, finding)
        if error is None:
            with uninterrupted():
                after.restore()
        return None

    def probe_skip(self, facts: StepFacts) -> Finding | None:
        """A GradScaler skipped: replay with a loss scale of 1, where it ought to be healthy."""
        started = time.perf_counter()
        seen = self._replayer.exact_facts().prints + _loss_prints(facts)
        after = end_state(self._replayer.snapshot)
        probed, _ = self._replayer.replay(scale=1.0)
        if any(sink.kind == "gradient" for sink in probed.sinks):
            again, _ = self._replayer.replay()
            result = self._examiner.locate(same_end(seen, again.prints), scale=1.0)
            finding = self._conclude(result)
            if finding is not None:
                self._ledger.notes.append(
                    "GradScaler skipped this step; replayed with a loss scale of 1 the gradients "
                    "are still not finite, so lowering the scale will not help"
                )
                self._note_costs(time.perf_counter() - started)
                return self._prove(result, finding, scale=1.0)
        with uninterrupted():
            after.restore()
        return None

    def explain_births(self, births: list[Birth]) -> None:
        """Finds out why operations of a step made ComplexHalf."""
        if self._replayer.snapshot.missing:
            explained, rest = [], births
        else:
            explained, rest = births[:_BIRTHS_EXPLAINED], births[_BIRTHS_EXPLAINED:]
            after = end_state(self._replayer.snapshot)
        for birth in explained:
            result = self._examiner.explain_birth(birth, self._number)
            finding = self._conclude(result)
            if finding is not None:
                self._prove(result, finding)
        for birth in rest:
            self._ledger.add(birth_finding(birth, self._number))
        if explained:
            with uninterrupted():
                after.restore()

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
