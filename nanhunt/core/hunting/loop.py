"""A hunt around a loop of the user's own, where a step ends with each `optimizer.step()`.

The loop's code cannot be run again from its middle, so what is replayed is the model: its root
modules are called again with the inputs they got in the failing step, under the same autocast
and random state, and the gradients that came back into their outputs are sent through them
once more. What went wrong outside the model (in the loss) is said to be there.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.attached.ours import is_ours
from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.hunting.investigation import FAILED, Investigation, StepContext
from nanhunt.core.hunting.ledger import Ledger, listed, working_scalers
from nanhunt.core.hunting.own_failures import noted
from nanhunt.core.hunting.progress import Progress
from nanhunt.core.hunting.recorded_calls import RecordedCalls
from nanhunt.core.learning import LearningLog, never_stepped
from nanhunt.core.locate.finding import sink_finding
from nanhunt.core.observe import op_table
from nanhunt.core.observe.observer import Activity, Observer
from nanhunt.core.program.target import Target
from nanhunt.core.snapshot.reachable import Surroundings
from nanhunt.core.snapshot.snapshot import Snapshot
from nanhunt.core.snapshot.tape import Tape
from nanhunt.core.tensors.stats import count_bad, is_bad, plain_tensors
from nanhunt.core.watch.present import confirmed, seen_losses
from nanhunt.core.watch.raised import given_when_raised, held_when_raised
from nanhunt.core.watch.replay import Replayer
from nanhunt.core.watch.sentinel import Sentinel
from nanhunt.core.watch.step_facts import Sink, StepFacts
from nanhunt.records.report import Finding, Report

_TO_GET_THE_LINE = (
    "Put the step in a function and hunt that with `%nanhunt model step_fn` to get the line."
)
_FAILED = "nanhunt itself failed and stopped watching"


class _Caught(BaseException):
    """Ends the user's loop; `except Exception` in it must not stop this."""


class LoopHunt:
    """Watches the loop inside a `with` block; leaves the block when something went bad.

    Args:
        model: a module, or a dict or sequence of modules.
        optimizer, scaler: known ones; others show up when they are used.
        complex_half: observe the first step's operations.
        snapshot: keep the state before each step, so that the failing one can be undone.
        progress: as in `Hunt`.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with LoopHunt(model) as watched:
        ...     for scale in (1.0, float("inf")):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(1, 2) * scale).sum().backward()
        ...         optimizer.step()
        >>> watched.report.finding.step
        1
    """

    def __init__(
        self,
        model: Any,
        *,
        optimizer: Optimizer | Iterable[Optimizer] | None = None,
        scaler: GradScaler | Iterable[GradScaler] | None = None,
        complex_half: bool = True,
        snapshot: bool = True,
        progress: bool | Callable[[int, int, str], None] = True,
    ) -> None:
        self._target = Target(model)
        self._optimizers: list[Optimizer] = listed(optimizer, Optimizer, "optimizer")
        self._scalers = working_scalers(scaler)
        self._around = Surroundings(None)
        self._snapshot = Snapshot(
            self._target, self._around, self._optimizers, self._scalers, snapshot
        )
        self._observe_first = complex_half and not self._target.compiled
        self._progress = Progress(progress)
        self._ledger = Ledger(self._target)
        self._calls = RecordedCalls(self._before_model)
        self._observer: Observer | None = None
        self._caught: StepFacts | None = None
        self._started = 0.0
        self._raised: list[Sink] = []  # what the loop held when it raised
        self._learning: LearningLog | None = None  # of a loop that has not updated yet
        self._zeroings = 0  # by optimizers of the model

    @property
    def report(self) -> Report:
        """What has been found."""
        return self._ledger.report()

    def __enter__(self) -> LoopHunt:
        activity = Activity()
        with uninterrupted():
            self._calls.attach(self._target.roots.values())
            if self._observe_first:
                self._observer = Observer(self._target, activity)
            self._sentinel = Sentinel(
                self._target,
                self._snapshot,
                self._optimizers,
                self._scalers,
                observer=self._observer,
                acquitted=self._ledger.acquitted,
                activity=activity,
                thrown_away=True,
            )
            self._sentinel.after_update = self._sentinel.after_skip = self._end_of_step
            self._sentinel.after_backward = self._after_backward
            self._sentinel.before_zeroing = self._before_zeroing
            self._sentinel.on_failure = self._own_failure
            self._sentinel.__enter__()
            if self._observer is not None:
                self._observer.__enter__()
        self._cautiously(self._begin)
        self._learning = LearningLog(self._target, [], [])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, _traceback: Any) -> bool:
        with uninterrupted():
            self._stop_observing()
            self._sentinel.__exit__()
            self._calls.detach()
        failed_before = self._ledger.failed
        if error is not None and is_ours(error):
            self._ledger.own_failure(error, _FAILED)
        elif error is not None and not isinstance(error, _Caught):
            self._ledger.ended(error, self._ledger.steps_run)
        try:
            if not failed_before:
                self._cautiously(lambda: self._look_at_the_end(error))
        finally:
            self._calls.forget()
            self._snapshot.release()
            self._progress.finish(self._ledger.steps_run, self._ledger.steps_run)
            self._ledger.publish()
        return kind is not None and issubclass(kind, _Caught | KeyboardInterrupt)

    def _cautiously(self, watching: Callable[[], None]) -> None:
        """The one place where failures of nanhunt's own are caught; the loop goes on unwatched."""
        try:
            watching()
        except Exception as error:  # noqa: BLE001  whatever it is, the loop did not raise it
            self._own_failure(error)

    def _own_failure(self, error: Exception) -> None:
        if not self._ledger.failed:  # the first is the one that tells
            self._ledger.own_failure(error, _FAILED)

    # -- while the loop runs --------------------------------------------------------------------

    def _begin(self) -> None:
        self._calls.forget()
        self._sentinel.facts = StepFacts()
        self._snapshot.begin(parameters=False)
        self._started = time.perf_counter()

    def _before_model(self) -> None:
        """What the loop itself writes into parameters before that is no part of a replay."""
        self._sentinel.quietly(self._snapshot.take_parameters)

    def _before_zeroing(self, owner: Any) -> None:
        if self._learning is not None and isinstance(owner, Optimizer):
            self._zeroings += self._target.owns(owner)

    def _end_of_step(self, _optimizer: Optimizer) -> None:
        if not self._ledger.failed:
            self._cautiously(self._next_step)

    def _next_step(self) -> None:
        facts = self._finish()
        seconds = time.perf_counter() - self._started
        if self._observer is not None:
            self._ledger.costs["observed_step_seconds"] = seconds
            with noted(self._ledger.notes, FAILED):
                self._ledger.note_first_step(self._observer)
            self._sentinel.hidden_gradients = self._observer.hides_gradients
            if self._observer.hid_bad:
                facts.note_lost(["gradients, replaced"])
        else:
            self._ledger.step_seconds.append(seconds)
        self._look(facts)
        self._learning = None
        if self._caught is not None:
            raise _Caught
        self._ledger.steps_run += 1
        self._progress.show(self._ledger.steps_run, 0, "watching")
        if not self._sentinel.activity.in_backward():  # a mode ends where it has begun
            self._stop_observing()
        self._snapshot.settle()
        self._begin()

    def _after_backward(self) -> None:
        """Optimizers that step inside of a backward pass have ended the first step in there."""
        if self._ledger.steps_run:
            self._stop_observing()

    def _finish(self) -> StepFacts:
        if self._observer is not None:
            return self._observer.quietly(self._sentinel.finish)
        return self._sentinel.finish()

    def _look(self, facts: StepFacts) -> None:
        # Whoever replaces what is not finite before the scaler looks leaves it blind: an overflow
        # that comes of its scale is a failure then as well. Here no other scale can be tried.
        facts.note_lost({label[7:] for label in facts.overflowed if label.endswith("replaced")})
        if not facts.suspects:
            return
        bad: list[Sink] = []
        with noted(self._ledger.notes, FAILED) as failed:
            bad = facts.sinks + confirmed(
                facts, self._target, self._optimizers, self._ledger.acquitted
            )
        if bad or failed:
            self._caught = facts
        else:
            self._sentinel.test_exactly(facts.suspects)

    def _look_at_raised(self, error: Exception) -> None:
        """Looks whether the loop has raised an exception for a bad value.

        Only what the model has had a part in counts; data may hold a NaN, and a list of the best
        losses an infinity, in any healthy program.
        """
        facts = self._sentinel.finish()
        with noted(self._ledger.notes, FAILED):
            self._raised = held_when_raised(error, wanted=_is_computed)
            losses = held_when_raised(error, wanted=lambda t: _is_computed(t) and t.numel() == 1)
            facts.sinks += [dataclasses.replace(sink, kind="loss") for sink in losses]
            given = given_when_raised(error)
            facts.sinks += given
            self._raised += given
        self._look(facts)
        if self._raised and self._caught is None:
            self._caught = facts

    def _stop_observing(self) -> None:
        if self._observer is not None:
            self._observer.__exit__(None, None, None)
            self._observer = None
            self._sentinel.stop_observing()

    # -- after it was caught ----------------------------------------------------------------------

    def _look_at_the_end(self, error: BaseException | None) -> None:
        """Looks at what came after the last step, and into the step that was caught, if one was.

        Args:
            error: the exception that ended the loop, ours or its own.
        """
        if error is None:
            facts = self._sentinel.finish()
            self._look(facts)
            if self._learning is not None and self._caught is None:
                finding = never_stepped(self._learning, self._zeroings, facts.backwards)
                if finding is not None:
                    self._ledger.add(finding)
        elif isinstance(error, Exception) and not is_ours(error):
            self._look_at_raised(error)
        if self._caught is not None:
            self._examine(self._caught)
        if error is not None and not isinstance(error, _Caught):
            with uninterrupted():
                self._snapshot.restore()

    def _examine(self, facts: StepFacts) -> None:
        started = time.perf_counter()
        self._ledger.steps_run += 1
        replayer = Replayer(
            self._target,
            self._snapshot,
            Tape(),
            self._optimizers,
            self._scalers,
            self._calls.run,
            self._ledger.acquitted,
        )
        context = StepContext(self._ledger.steps_run - 1, self._calls.given(), trials=False)
        investigation = Investigation(replayer, self._ledger, self._progress, context)
        finding = None
        with noted(self._ledger.notes, FAILED) as failed:
            finding = self._look_closely(facts, replayer, investigation)
        if failed:
            finding = investigation.seen(facts, failed[0])
        if finding is None:
            self._ledger.steps_run -= bool(self._raised)  # which has not been run to its end
            return
        investigation.record(finding)
        self._ledger.costs["examination_seconds"] = time.perf_counter() - started
        with uninterrupted():
            self._snapshot.restore()

    def _look_closely(
        self, facts: StepFacts, replayer: Replayer, investigation: Investigation
    ) -> Finding | None:
        losses = seen_losses(facts)
        present = replayer.exact_facts()
        facts.sinks, facts.named = [*losses, *facts.sinks, *present.sinks], True
        if not facts.sinks and not self._raised:
            return None
        seen_calls = bool(self._calls.calls)
        missing = self._snapshot.missing or ("" if seen_calls else "no call of the model was seen")
        if missing:
            return investigation.not_reproduced(facts, missing)
        finding = investigation.locate("symptom")
        if finding is None and not facts.sinks:
            return None  # the loop's own code made what it looks at, and may have thrown it away
        if finding is not None and finding.phase == "data" and self._calls.bad_inputs():
            if not any(map(is_bad, plain_tensors(self._handed_out()))):
                finding = self._of_input(facts, finding)
        elif finding is None or finding.phase == "data":
            finding = self._behind_outputs(investigation) or self._outside_model(facts, losses)
        self._ledger.notes.append(
            "replayed from the model's recorded inputs; the loop around it was not run again"
        )
        return finding

    def _handed_out(self) -> list[Any]:
        """The batches of this step, as far as somebody has seen them."""
        return []

    def _behind_outputs(self, investigation: Investigation) -> Finding | None:
        """Where arithmetic of the model's made a -Inf that it returned; a written one is a mask."""
        if not self._calls.outputs_bad:
            return None
        self._calls.exact = True
        finding = investigation.locate("symptom")
        if finding is None or finding.phase != "forward" or finding.op is None:
            return None
        return None if op_table.packet(finding.op) in op_table.WRITES_CONSTANTS else finding

    def _of_input(self, facts: StepFacts, finding: Finding) -> Finding:
        """What is known where the model was given something bad that nobody has seen before."""
        return dataclasses.replace(
            sink_finding(facts, self._ledger.steps_run - 1),
            kind=finding.kind,
            phase="loop",
            inputs=finding.inputs[:1] if finding.tensor else (),
            explanation="The model was called with an input that was not finite: the data were so "
            f"already, or the loop's own code made that of them. {_TO_GET_THE_LINE}",
        )

    def _outside_model(self, facts: StepFacts, losses: list[Sink]) -> Finding:
        seen = sink_finding(facts, self._ledger.steps_run - 1)
        if self._calls.outputs_bad:
            return dataclasses.replace(
                seen,
                explanation="The model's outputs were not finite when it was run again on the same "
                "inputs; which operation made that is not known.",
            )
        where = "its gradients or its update are not"
        if losses or facts.sinks[0].kind == "loss":
            where = "its loss is not"
        elif facts.sinks[0].kind == "operation":
            where = f"{facts.sinks[0]} is not"
        return dataclasses.replace(
            seen,
            explanation=f"The model's outputs, when it was run again on the same inputs, were "
            f"finite; {where}: it happened in the loop's own code. {_TO_GET_THE_LINE}",
        )


def _is_computed(tensor: Tensor) -> bool:
    """Whether a tensor holds a NaN and comes of something that is trained."""
    return tensor.grad_fn is not None and bool(count_bad(tensor)[0])
