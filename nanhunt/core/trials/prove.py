"""Trying remedies: the failing step is replayed with one of them, and judged like any step."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from nanhunt.core.causes.scene import Scene
from nanhunt.core.observe.observer import Activity, Observer
from nanhunt.core.program.source_lines import is_installed, package_of
from nanhunt.core.trials.health import why_not_healthy
from nanhunt.core.trials.island import GaveUpError, smallest
from nanhunt.core.trials.remedy import Remedy, Scope
from nanhunt.core.trials.snippets import Edit
from nanhunt.core.trials.states import skipped_batch
from nanhunt.core.trials.table import half_modules, is_half_precision, remedies_for
from nanhunt.core.trials.widen import modules_in_float32
from nanhunt.core.watch.magnitudes import History, Usual
from nanhunt.core.watch.replay import Replayer
from nanhunt.core.watch.step_facts import StepFacts
from nanhunt.records.report import Finding, Trial

SECONDS = 120.0  # for all trials of a hunt; a person is waiting for the report
_HOLDS_FOR = 3  # further steps that a smaller update must survive to count as a cure


class TimeLimit:
    """For all trials of a hunt; it begins with the first.

    Args:
        seconds: how many; None for as many as usual.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._started: float | None = None

    def begin(self) -> None:
        """Trials begin."""
        if self._started is None:
            self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """How many there are in all."""
        return SECONDS if self._seconds is None else self._seconds

    @property
    def is_up(self) -> bool:
        """Whether nothing more is to be begun."""
        return self._started is not None and time.monotonic() - self._started > self.seconds

    def __str__(self) -> str:
        return f"not run: the {self.seconds:.0f} s for trials were up"


class _Outcome(NamedTuple):
    """A replay with a remedy; `trouble` says why it is no cure, or is empty."""

    facts: StepFacts
    error: BaseException | None
    scope: Scope
    trouble: str


class Prover:
    """Runs the trials of one finding; the caller puts the state back afterwards.

    Args:
        replayer: runs the step again.
        scene: the evidence.
        scale: the loss scale under which the step fails, if not the scaler's own.
        backwards: how many backward passes a healthy step has.
        confirm: run this many further steps with each remedy that cures.
        limit: of time, for all trials of the hunt.
        history: how large loss and gradients were.
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
        limit: TimeLimit,
        history: History,
        tell: Callable[[str], None],
    ) -> None:
        self._replayer = replayer
        self._target = replayer.target
        self._scene = scene
        self._scale = scale
        self._backwards = backwards
        self._confirm = confirm
        self._tell = tell
        self._limit = limit
        self._history = history
        self._births = scene.finding.kind == "complex_half"
        self._gradients: dict[str, Tensor] = {}

    def trials(self, finding: Finding) -> tuple[Trial, ...]:
        """Tries every remedy that the finding's cause suggests; cures first, smallest first."""
        self._scene.finding = finding
        self._limit.begin()
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
            if self._limit.is_up:
                late = str(self._limit)
                done.append(Trial(remedy.title, None, invasiveness=remedy.invasiveness, note=late))
            else:
                done.append(self._try(remedy))
        if is_half_precision(self._scene) and not self._limit.is_up:
            island = self._island()
            done += [island] if island is not None else []
        done.sort(key=lambda trial: (trial.cured is not True, trial.invasiveness))
        return tuple(done)

    def _try(self, remedy: Remedy) -> Trial:
        facts, error, scope, trouble = self._run(remedy)
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
            cured=not trouble,
            loss=_loss(facts),
            gradient_change=self._change(facts),
            note=trouble,
        )
        # A smaller update always puts an explosion off by a step: it has to hold for more.
        further = max(self._confirm, _HOLDS_FOR) if remedy.from_previous else self._confirm
        if trial.cured and further:
            trial = self._confirmed(remedy, trial, further)
        return _with_code(trial, edit) if trial.cured and edit is not None else trial

    def _run(self, remedy: Remedy) -> _Outcome:
        """Replays the step with a remedy.

        A GradScaler leaves out an update whose gradients are bad, and the step then looks
        healthy. So when it did, the step is run again with a loss scale of 1.
        """
        outcome = self._run_at(remedy, self._scale)
        if not outcome.trouble and outcome.facts.skipped and self._scale is None:
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
        if error is not None or facts.bad or facts.backwards < self._backwards:
            trouble = _still_bad(facts)
        elif observer is not None and observer.births:
            trouble = f"still made: ComplexHalf, by {observer.births[0].record.op}"
        elif not scopes[-1].applied:
            trouble = "the call did not come again"
        else:
            trouble = why_not_healthy(facts, self._usual(remedy), may_idle=remedy.may_idle)
        return _Outcome(facts, error, scopes[-1], trouble)

    def _usual(self, remedy: Remedy) -> Usual:
        """How large things were before the first step that the remedy changes.

        In a wider dtype a loud batch is as loud as the program says it is, which is no fault of
        the remedy's; but it does not stop a run that is getting away.
        """
        growing = any(g.what in ("loss", "gradients") for g in self._scene.growths)
        if remedy.only_widens and not growing:
            return Usual()
        return self._history.usual(self._scene.finding.step - remedy.from_previous)

    def _island(self) -> Trial | None:
        """The smallest set of modules in float32 that cures, if any set does."""
        counted = 0

        def remedy(names: tuple[str, ...]) -> Remedy:
            return modules_in_float32(self._target, names, self._scene.optimizers)

        def healthy(names: tuple[str, ...]) -> bool:
            nonlocal counted
            if self._limit.is_up:
                raise GaveUpError
            counted += 1
            self._tell(f"smallest float32 island, replay {counted}")
            return not self._run(remedy(names)).trouble

        modules = half_modules(self._scene, self._target)
        try:
            if not modules or not healthy(tuple(modules)):
                return None
            island = remedy(tuple(smallest(modules, healthy)))
        except GaveUpError:
            return None
        trial = self._try(island)
        found = f"smallest set of modules in float32 that cures, found in {counted} replays"
        return dataclasses.replace(trial, note="; ".join(filter(None, (found, trial.note))))

    def _confirmed(self, remedy: Remedy, trial: Trial, steps: int) -> Trial:
        """Goes on from the cured step, to see whether the failure comes back."""
        if self._limit.is_up:
            return dataclasses.replace(trial, note=f"its further steps were {self._limit}")
        facts = self._replayer.go_on(
            steps, lambda: _scope(remedy), self._scale, remedy.from_previous
        )
        usual = self._usual(remedy)
        troubles = [
            _still_bad(f) if f.bad else why_not_healthy(f, usual, may_idle=remedy.may_idle)
            for f in facts
        ]
        held = next((number for number, trouble in enumerate(troubles) if trouble), len(facts))
        holds = held == len(facts)
        if not facts:
            told = "no further step could be run: the data ended, or there was no room for a copy"
        elif holds:
            told = f"held for {held} further step{'s' if held != 1 else ''}"
        else:
            later = f"{held + 1} step{'s' if held else ''} later"
            told = f"failed again {later}: {troubles[held]}"
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
