"""Examining a step that went bad: replay it, observe it, and name the first value that mattered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from nanhunt.core.causes import explained
from nanhunt.core.causes.scene import Named, Scene
from nanhunt.core.locate.descent import Origin
from nanhunt.core.locate.finding import (
    Outside,
    birth_finding,
    closeup_of,
    finding_of,
    judge,
    swallowed_findings,
)
from nanhunt.core.locate.starting_tensors import Item, items
from nanhunt.core.observe.observer import Activity, Observer
from nanhunt.core.observe.op_records import Birth, OpRecord
from nanhunt.core.tensors.stats import tensor_stats
from nanhunt.core.watch.magnitudes import Growth
from nanhunt.core.watch.replay import Replayer
from nanhunt.core.watch.step_facts import Sink, StepFacts
from nanhunt.records.report import Finding


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


Prints = list[tuple[str, tuple[int, int]]]


def attempted(look: Callable[[], Examination], facts: StepFacts, notes: list[str]) -> Examination:
    """Examines a step. What was seen of it stays seen when the examination itself fails.

    Args:
        look: replays, observes, locates and explains.
        facts: the step as it was seen; `look` may add to them.
        notes: gets a line about the failure.
    """
    try:
        return look()
    except Exception as error:  # noqa: BLE001  whatever it is: out of memory, a mistake of ours
        told = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        notes.append(f"the step could not be examined: {told}")
        if not facts.sinks and (facts.named or not facts.suspects):
            return Examination(None)
        reason = f"the examination ended in {type(error).__name__}"
        return Examination(sink_finding(facts), (), f"not_reproduced: {reason}")


def same_end(first: Prints, second: Prints) -> str:
    """Compares the bits of parameters, buffers and optimizer states after two runs of a step."""
    return "bit_exact" if sorted(first) == sorted(second) else "symptom"


class Examiner:
    """Says what a step that went bad shows, by replaying it.

    Args:
        replayer: runs the step again; the caller puts the state back afterwards.
        batches: what the step is given, beside what it takes from iterators itself.
        step: its number.
        growths: what grew in the steps before.
        variables: tensors in variables of the step function, by their names.
    """

    def __init__(
        self,
        replayer: Replayer,
        batches: Sequence[Any] = (),
        step: int = 0,
        growths: Sequence[Growth] = (),
        variables: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._replayer = replayer
        self._target = replayer.target
        self._snapshot = replayer.snapshot
        self._batches = batches
        self._step = step
        self._growths = list(growths)
        self._variables = variables or {}

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
        plain, plain_error = self._replayer.replay()
        if plain_error is not None and not plain.bad and type(plain_error) is not type(error):
            raise plain_error
        quiet = not plain.bad and not original.sinks
        if quiet and error is None and not skipped:
            return Examination(None)  # the screen tripped on finite values
        if not plain.bad and plain_error is None and not skipped:
            return self._not_reproduced(original)
        same = same_end(original.prints, plain.prints)
        result = self.locate(same, sinks_wanted=plain, error=error)
        known = (sink.name in result.acquitted for sink in original.sinks)
        if result.finding is None and error is None and not all(known):
            return dataclasses.replace(result, finding=sink_finding(original))
        return result

    def locate(
        self,
        replay: str,
        *,
        scale: float | None = None,
        sinks_wanted: StepFacts | None = None,
        error: BaseException | None = None,
    ) -> Examination:
        """Observes the step and describes what it finds.

        Args:
            replay: how the step compares with its replay.
            scale: the loss scale, if not the scaler's own.
            sinks_wanted: what a replay without observation showed.
            error: what the step raises, if anything.

        Raises:
            Exception: what the replay raised instead, before anything bad was seen in it.
        """
        observer = Observer(self._target, Activity(), calls=True)
        facts, raised = self._replayer.replay(observer, scale=scale)
        if raised is not None and not facts.bad and type(raised) is not type(error):
            raise raised
        protected = self._never_masks(observer)
        verdict = judge(observer, facts, protected)
        warnings = tuple(swallowed_findings(observer, self._step, protected))
        if verdict.origin is None:
            if sinks_wanted is not None and sinks_wanted.sinks and self._target.compiled:
                scene = Scene(finding=sink_finding(sinks_wanted), only_compiled=True)
                return Examination(explained(scene), warnings, replay, verdict.acquitted)
            return Examination(None, warnings, replay, verdict.acquitted)
        scene = self._look_closely(verdict.origin.record, scale)
        scene.plain_step_with_scaler = facts.plain_step_with_scaler
        scene.scaled_twice = facts.scaled_twice
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
        scene = Scene(
            growths=self._growths,
            optimizers=self._replayer.optimizers,
            scalers=self._replayer.scalers,
        )
        scene.closeup = closeup_of(record)
        if scene.closeup is not None:
            observer = Observer(self._target, Activity(), closeup=scene.closeup)
            self._replayer.replay(observer, scale=scale)
            scene.closeup.release()
            self._snapshot.restore()
            scene.named = self._named(observer)
        self._snapshot.restore()
        return scene

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
        batches = [*self._batches, *(batch for batch, _, _ in self._replayer.tape.items)]
        optimizers = self._replayer.optimizers
        return list(items(self._target, optimizers, batches, self._variables))

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
