"""Trying remedies: the failing step is replayed with one of them, and judged like any step."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from nanhunt.core.causes.scene import Scene
from nanhunt.core.observe.observer import Activity, Observer
from nanhunt.core.program.source_lines import is_installed, package_of
from nanhunt.core.trials.island import GaveUpError, smallest
from nanhunt.core.trials.remedy import Remedy, Scope
from nanhunt.core.trials.snippets import Edit
from nanhunt.core.trials.states import skipped_batch
from nanhunt.core.trials.table import half_modules, is_half_precision, remedies_for
from nanhunt.core.trials.widen import modules_in_float32
from nanhunt.core.watch.replay import Replayer
from nanhunt.core.watch.step_facts import StepFacts
from nanhunt.records.report import Finding, Trial

SECONDS = 120.0  # for all trials of a finding; a person is waiting for the report
_LATE = f"not run: {SECONDS:.0f} s were up"
_HOLDS_FOR = 3  # further steps that a smaller update must survive to count as a cure
_Outcome = tuple[StepFacts, "BaseException | None", Scope, bool]


class Prover:
    """Runs the trials of one finding; the caller puts the state back afterwards.

    Args:
        replayer: runs the step again.
        scene: the evidence.
        scale: the loss scale under which the step fails, if not the scaler's own.
        backwards: how many backward passes a healthy step has.
        confirm: run this many further steps with the winning remedy.
        tell: told what is being done.
    """

    def __init__(
        self,
        replayer: Replayer,
        scene: Scene,
        *,
        scale: float | None,
        backwards: int,
        confirm: int,
        tell: Callable[[str], None],
    ) -> None:
        self._replayer = replayer
        self._target = replayer.target
        self._scene = scene
        self._scale = scale
        self._backwards = backwards
        self._confirm = confirm
        self._tell = tell
        self._births = scene.finding.kind == "complex_half"
        self._gradients: dict[str, Tensor] = {}
        self._started = time.monotonic()

    def trials(self, finding: Finding) -> tuple[Trial, ...]:
        """Tries every remedy that the finding's cause suggests; cures first, smallest first."""
        self._scene.finding = finding
        remedies = remedies_for(finding.cause, self._scene, self._target)
        remedies = [r for r in remedies if self._replayer.past or not r.from_previous]
        other = self._replayer.other_batch() if finding.phase == "data" else None
        remedies += [skipped_batch(other)] if other is not None else []
        if not remedies:
            return ()
        facts, _ = self._replayer.replay(scale=self._scale, keep_gradients=True)
        dense = ((n, g) for n, g in facts.gradients.items() if g.layout == torch.strided)
        self._gradients = {name: grad for name, grad in dense if torch.isfinite(grad).all()}
        done = []
        for number, remedy in enumerate(remedies, 1):
            self._tell(f"trying remedy {number} of {len(remedies)}")
            if self._time_is_up():
                late = Trial(remedy.title, None, invasiveness=remedy.invasiveness, note=_LATE)
                done.append((remedy, late))
            else:
                done.append((remedy, self._try(remedy)))
        if is_half_precision(self._scene) and not self._time_is_up():
            island = self._island()
            done += [island] if island is not None else []
        done.sort(key=lambda pair: (pair[1].cured is not True, pair[1].invasiveness))
        if done and done[0][1].cured and self._confirm and not done[0][0].from_previous:
            done[0] = (done[0][0], self._confirmed(*done[0], self._confirm))
            done.sort(key=lambda pair: (pair[1].cured is not True, pair[1].invasiveness))
        return tuple(trial for _, trial in done)

    def _time_is_up(self) -> bool:
        return time.monotonic() - self._started > SECONDS

    def _try(self, remedy: Remedy) -> Trial:
        facts, error, scope, cured = self._run(remedy)
        blank = Trial(remedy.title, None, invasiveness=remedy.invasiveness)
        if error is not None:
            first = str(error).strip().splitlines()[:1]
            told = f"{type(error).__name__}: {first[0] if first else ''}"
            return dataclasses.replace(blank, note=f"the step raised {told}"[:160])
        if not scope.applied:
            return dataclasses.replace(blank, note="the call did not come again")
        edit = remedy.edit(scope)
        trial = dataclasses.replace(
            blank,
            cured=cured,
            loss=_loss(facts),
            gradient_change=self._change(facts),
            note="" if cured else _still_bad(facts),
        )
        if cured and remedy.from_previous:
            # A smaller update always puts an explosion off by a step: it has to hold for more.
            trial = self._confirmed(remedy, trial, max(self._confirm, _HOLDS_FOR))
        return _with_code(trial, edit) if trial.cured and edit is not None else trial

    def _run(self, remedy: Remedy) -> _Outcome:
        """Replays the step with a remedy.

        A GradScaler leaves out an update whose gradients are bad, and the step then looks
        healthy. So when it did, the step is run again with a loss scale of 1.
        """
        outcome = self._run_at(remedy, self._scale)
        if outcome[3] and outcome[0].skipped and self._scale is None:
            return self._run_at(remedy, 1.0)
        return outcome

    def _run_at(self, remedy: Remedy, scale: float | None) -> _Outcome:
        scopes: list[Scope] = []

        def change() -> Scope:
            scopes.append(_scope(remedy))
            return scopes[-1]

        observer = Observer(self._target, Activity()) if self._births else None
        facts, error = self._replayer.replay(
            observer,
            scale=scale,
            change=change,
            keep_gradients=True,
            from_previous=remedy.from_previous,
        )
        healthy = error is None and not facts.bad and facts.backwards >= self._backwards
        if observer is not None:
            healthy = healthy and not observer.births
        return facts, error, scopes[-1], healthy and scopes[-1].applied

    def _island(self) -> tuple[Remedy, Trial] | None:
        """The smallest set of modules in float32 that cures, if any set does."""
        counted = 0

        def remedy(names: tuple[str, ...]) -> Remedy:
            return modules_in_float32(self._target, names, self._scene.optimizers)

        def healthy(names: tuple[str, ...]) -> bool:
            nonlocal counted
            if self._time_is_up():
                raise GaveUpError
            counted += 1
            self._tell(f"smallest float32 island, replay {counted}")
            return self._run(remedy(names))[3]

        modules = half_modules(self._scene, self._target)
        try:
            if not modules or not healthy(tuple(modules)):
                return None
            island = remedy(tuple(smallest(modules, healthy)))
        except GaveUpError:
            return None
        trial = self._try(island)
        note = f"smallest set of modules in float32 that cures, found in {counted} replays"
        return island, dataclasses.replace(trial, note=note)

    def _confirmed(self, remedy: Remedy, trial: Trial, steps: int) -> Trial:
        """Goes on from the cured step, to see whether the failure comes back."""
        facts = self._replayer.go_on(
            steps, lambda: _scope(remedy), self._scale, remedy.from_previous
        )
        held = sum(not f.bad for f in facts)
        holds = held == len(facts)
        if not facts:
            told = "no further step could be run: the data ended"
        elif holds:
            told = f"held for {held} further step{'s' if held != 1 else ''}"
        else:
            told = f"failed again {held + 1} step{'s' if held else ''} later"
        note = "; ".join(filter(None, (trial.note, told)))
        return dataclasses.replace(trial, cured=holds, note=note)

    def _change(self, facts: StepFacts) -> float | None:
        """Largest relative change of a gradient that had been finite before."""
        changes = []
        for name, before in self._gradients.items():
            after = facts.gradients.get(name)
            if after is None or after.shape != before.shape or after.layout != torch.strided:
                continue
            size = before.abs().double().norm().item()
            moved = (after.double() - before.double()).abs().norm().item()
            if size > 0 and math.isfinite(moved):
                changes.append(moved / size)
        return max(changes, default=None)


def _scope(remedy: Remedy) -> Scope:
    """The remedy in force; if it cannot be put in force, what it had changed is undone."""
    scope = Scope()
    try:
        remedy.enter(scope)
    except BaseException:  # whatever it is, Ctrl-C too: it goes on
        scope.close()
        raise
    return scope


def _with_code(trial: Trial, edit: Edit) -> Trial:
    if is_installed(edit.file):
        package = package_of(edit.file).partition(",")[0]
        told = f"for the maintainers of {package}: `{' '.join(edit.text.split())}`"
        return dataclasses.replace(trial, note="; ".join(filter(None, (trial.note, told))))
    lines = (edit.first, edit.last) if edit.first else ()
    return dataclasses.replace(trial, snippet=edit.text, file=edit.file, lines=lines)


def _loss(facts: StepFacts) -> float | None:
    if not facts.losses:
        return None
    loss = facts.losses[-1]
    return float(loss.detach().abs().float().mean()) if loss.is_complex() else _mean(loss)


def _mean(loss: Tensor) -> float:
    return float(loss.detach().float().mean())


def _still_bad(facts: StepFacts) -> str:
    names = [str(sink) for sink in facts.sinks[:2]] or facts.suspects[:2]
    return f"still bad: {', '.join(names)}" if names else "the step did not run to its end"
