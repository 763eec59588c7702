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

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.hunting.examine import Examination, Examiner, attempted, sink_finding
from nanhunt.core.hunting.ledger import Ledger, listed, working_scalers
from nanhunt.core.hunting.progress import Progress
from nanhunt.core.observe.observer import Activity, Observer
from nanhunt.core.program.target import Target
from nanhunt.core.program.uninterrupted import uninterrupted
from nanhunt.core.snapshot.random_state import RandomState
from nanhunt.core.snapshot.reachable import Surroundings
from nanhunt.core.snapshot.snapshot import Snapshot
from nanhunt.core.snapshot.tape import Tape
from nanhunt.core.tensors.stats import count_bad, is_bad, plain_tensors
from nanhunt.core.watch.present import confirmed, seen_losses
from nanhunt.core.watch.replay import Replayer
from nanhunt.core.watch.sentinel import Sentinel
from nanhunt.core.watch.step_facts import Sink, StepFacts
from nanhunt.records.report import Finding, Report

_WAITING = 16  # calls in eval mode with gradients on whose inputs are kept for a backward pass


class _Caught(BaseException):
    """Ends the user's loop; `except Exception` in it must not stop this."""


@dataclasses.dataclass
class _Call:
    """One call of a root module: its inputs, its surroundings, and what came back."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    random: RandomState
    autocast: list[tuple[str, bool, torch.dtype]]
    grad_enabled: bool
    gradients: dict[int, Tensor] = dataclasses.field(default_factory=dict)
    returned: bool = False


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
        self._calls: list[_Call] = []
        self._handles: list[Any] = []
        self._observer: Observer | None = None
        self._caught: StepFacts | None = None
        self._started = 0.0

    @property
    def report(self) -> Report:
        """What has been found."""
        return self._ledger.report()

    def __enter__(self) -> LoopHunt:
        activity = Activity()
        with uninterrupted():
            for root in self._target.roots.values():
                if isinstance(root, torch.jit.ScriptModule):
                    continue  # it takes no hooks: its calls are not recorded
                self._handles += [
                    root.register_forward_pre_hook(self._note_call, with_kwargs=True),
                    root.register_forward_hook(self._note_output),
                ]
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
            )
            self._sentinel.after_update = self._sentinel.after_skip = self._end_of_step
            self._sentinel.__enter__()
            if self._observer is not None:
                self._observer.__enter__()
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, _traceback: Any) -> bool:
        with uninterrupted():
            self._stop_observing()
            self._sentinel.__exit__()
            for handle in self._handles:
                handle.remove()
        try:
            if kind is None:
                self._look(self._sentinel.finish())
            if self._caught is not None:
                self._examine(self._caught)
            elif kind is not None:
                with uninterrupted():
                    self._snapshot.restore()
        finally:
            self._ledger.interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
            self._calls = []
            self._snapshot.release()
            self._progress.finish(self._ledger.steps_run, self._ledger.steps_run)
            self._ledger.publish()
        return kind is not None and issubclass(kind, _Caught | KeyboardInterrupt)

    # -- while the loop runs --------------------------------------------------------------------

    def _begin(self) -> None:
        self._calls = []
        self._sentinel.facts = StepFacts()
        self._snapshot.begin()
        self._started = time.perf_counter()

    def _end_of_step(self, _optimizer: Optimizer) -> None:
        facts = self._finish()
        seconds = time.perf_counter() - self._started
        if self._observer is not None:
            self._ledger.costs["observed_step_seconds"] = seconds
            observer = self._observer

            def note() -> Examination:
                self._ledger.note_first_step(observer)
                return Examination(None)

            attempted(note, facts, self._ledger.notes)
        else:
            self._ledger.step_seconds.append(seconds)
        self._look(facts)
        if self._caught is not None:
            raise _Caught
        self._ledger.steps_run += 1
        self._progress.show(self._ledger.steps_run, 0, "watching")
        self._stop_observing()
        self._snapshot.settle()
        self._begin()

    def _finish(self) -> StepFacts:
        if self._observer is not None:
            return self._observer.quietly(self._sentinel.finish)
        return self._sentinel.finish()

    def _look(self, facts: StepFacts) -> None:
        if not facts.suspects:
            return
        bad: list[Sink] = []

        def look() -> Examination:
            bad.extend(confirmed(facts, self._target, self._optimizers, self._ledger.acquitted))
            return Examination(None)

        failed = attempted(look, facts, self._ledger.notes).finding is not None
        if bad or failed:
            self._caught = facts
        else:
            self._sentinel.test_exactly(facts.suspects)

    def _stop_observing(self) -> None:
        if self._observer is not None:
            self._observer.__exit__(None, None, None)
            self._observer = None
            self._sentinel.stop_observing()

    def _note_call(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if _evaluates(module):
            return
        if not module.training:
            self._drop_evaluations()
        kinds = [device for device in ("cuda", "cpu") if torch.is_autocast_enabled(device)]
        self._calls.append(
            _Call(
                module,
                args,
                kwargs,
                RandomState.now(),
                [(kind, True, torch.get_autocast_dtype(kind)) for kind in kinds],
                torch.is_grad_enabled(),
            )
        )

    def _drop_evaluations(self) -> None:
        """An evaluation that forgot `no_grad` must not hold all of its data.

        Training in eval mode is told from it by its backward passes.
        """
        waiting = [c for c in self._calls if not c.module.training and not c.gradients]
        if len(waiting) >= _WAITING:
            self._calls = [call for call in self._calls if call is not waiting[0]]

    def _note_output(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        if _evaluates(module):
            return
        # Not simply the last one: a root may call another, or end a step while it runs.
        running = (c for c in reversed(self._calls) if c.module is module and not c.returned)
        call = next(running, None)
        if call is None:
            return
        call.returned = True
        for number, tensor in enumerate(plain_tensors(output)):
            if tensor.requires_grad:
                tensor.register_hook(_keeper(call.gradients, number))

    # -- after it was caught ----------------------------------------------------------------------

    def _examine(self, facts: StepFacts) -> None:
        started = time.perf_counter()
        self._ledger.steps_run += 1
        step = self._ledger.steps_run - 1
        replayer = Replayer(
            self._target,
            self._snapshot,
            Tape(),
            self._optimizers,
            self._scalers,
            self._replay_model,
            self._ledger.acquitted,
        )
        batches = [call.args or call.kwargs for call in self._calls]  # so that they have names
        examiner = Examiner(replayer, batches, step)
        result = attempted(
            lambda: self._look_closely(facts, replayer, examiner), facts, self._ledger.notes
        )
        if result.finding is None:
            return
        self._ledger.replay = result.replay
        self._ledger.add(dataclasses.replace(result.finding, step=step))
        self._ledger.costs["examination_seconds"] = time.perf_counter() - started
        with uninterrupted():
            self._snapshot.restore()

    def _look_closely(
        self, facts: StepFacts, replayer: Replayer, examiner: Examiner
    ) -> Examination:
        losses = seen_losses(facts)
        present = replayer.exact_facts()
        facts.sinks, facts.named = [*losses, *present.sinks], True
        if not facts.sinks:
            return Examination(None)
        missing = self._snapshot.missing or ("" if self._calls else "no call of the model was seen")
        if missing:
            return Examination(sink_finding(facts), (), f"not_reproduced: {missing}")
        result = examiner.locate("symptom")
        finding = result.finding
        if finding is None or (finding.phase == "data" and not self._bad_inputs()):
            finding = self._outside_model(facts, losses)
        self._ledger.notes.append(
            "replayed from the model's recorded inputs; the loop around it was not run again"
        )
        return dataclasses.replace(result, finding=finding)

    def _bad_inputs(self) -> bool:
        return any(
            is_bad(tensor)
            for call in self._calls
            for tensor in plain_tensors([call.args, call.kwargs])
        )

    def _outside_model(self, facts: StepFacts, losses: list[Sink]) -> Finding:
        finding = sink_finding(facts)
        where = "its loss is not" if losses else "its gradients or its update are not"
        return dataclasses.replace(
            finding,
            explanation=f"The model, run again on the same inputs, was finite; {where}: it "
            "happened in the loop's own code. Put the step in a function and hunt that with "
            "`%nanhunt model step_fn` to get the line.",
        )

    def _replay_model(self) -> list[Tensor]:
        """Runs the model again; returns its bad outputs, which stand for the loss."""
        backward = getattr(torch.autograd.backward, "__wrapped__", torch.autograd.backward)
        bad: list[Tensor] = []
        for call in self._calls:
            call.random.restore()
            output = self._call_step(call)
            tensors = plain_tensors(output)
            pairs = [(tensors[i], g) for i, g in call.gradients.items() if i < len(tensors)]
            for tensor in tensors:
                nan, posinf, _ = count_bad(tensor)  # -Inf alone is a mask in the logits
                if nan or posinf:
                    bad.append(tensor)
            if pairs:
                backward([t for t, _ in pairs], [g for _, g in pairs])
        return bad

    @staticmethod
    def _call_step(call: _Call) -> Any:
        """Calls a root module as it was called in the loop; stacks are cut off here."""
        with torch.set_grad_enabled(call.grad_enabled):
            contexts = [torch.autocast(kind, dtype=dtype) for kind, _, dtype in call.autocast]
            for context in contexts:
                context.__enter__()
            try:
                return call.module(*call.args, **call.kwargs)
            finally:
                for context in reversed(contexts):
                    context.__exit__(None, None, None)


def _evaluates(module: nn.Module) -> bool:
    """Whether a call changes nothing: an evaluation of thousands of batches is not kept."""
    return not module.training and not torch.is_grad_enabled()


def _keeper(gradients: dict[int, Tensor], number: int) -> Callable[[Tensor], None]:
    def keep(gradient: Tensor) -> None:
        gradients[number] = gradient.detach()

    return keep
