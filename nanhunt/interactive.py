"""`nanhunt.hunt` and `nanhunt.Hunt`: the hunt, at once or step by step, also inside a step."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

from nanhunt.core.hunting.engine import HuntEngine
from nanhunt.core.observe.observer import Activity
from nanhunt.core.program.printed import printed_to, unheard
from nanhunt.core.stepping.ambient import Ambient
from nanhunt.core.stepping.breakpoints import Breakpoint, Condition
from nanhunt.core.stepping.events import Here
from nanhunt.core.stepping.gauges import Gauges
from nanhunt.core.stepping.stepper import INTO, OUT, OVER, PAUSED, RESUME, RUNNING, Stepper
from nanhunt.core.stepping.watch import StepHooks
from nanhunt.errors import HuntBusyError, UsageError
from nanhunt.records.report import Finding, Report

if TYPE_CHECKING:
    from nanhunt.plots import Plots

_hunts: list[weakref.ref[Hunt]] = []  # of this process, the newest last


def last_hunt() -> Hunt | None:
    """The newest hunt that is not closed; else the newest that still lives, if any does."""
    living = [hunt for hunt in (ref() for ref in reversed(_hunts)) if hunt is not None]
    return next((hunt for hunt in living if not hunt.closed), next(iter(living), None))


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


class Hunt(HuntEngine):
    """A hunt that can be stepped by hand, also inside a step, and looked at in pictures.

    Args:
        model, step_fn: as in `hunt`.
        optimizer: an optimizer or several; found by itself if None. `()` says that the step
            updates parameters without one.
        scaler: a GradScaler or several; found by itself if None.
        data: iterable of batches; `step_fn` then takes one.
        complex_half: observe the first step's operations for ComplexHalf births.
        snapshot: keep the state before each step, so that it can be undone and replayed.
        trials: try the remedies that the cause suggests by replaying the failing step.
        confirm: run this many further steps with each remedy that cures the failing one, on
            state that is put back afterwards; it has to hold for them as well.
        trial_seconds: after so many seconds no more remedies are tried in this hunt (120).
        back: how many steps before the last one `back` can undo; each costs the memory of a
            copy of what the optimizers write, and there are fewer when memory is short.
        progress: True for a line on a terminal, or a callable
            `(steps_done, steps_total, what)`, called at most ten times a second.

    Stepping inside a step:

        hunt.into()                          run to the first module, then to the next, ...
        hunt.over()                          run the module that the step stands before
        hunt.out()                           run until the module around has run
        hunt.break_at("encoder.*", "nan")    stop there from now on
        hunt.resume()                        on to the next breakpoint or the step's end
        hunt.here                            the live module and its tensors while paused
        hunt.back()                          undo the step, and then the ones before
        hunt.replay()                        run the last step once more
        hunt.statistics = True               histograms of every module from the next step on
        hunt.plot.activations("encoder.0")   a matplotlib figure of them

    A step that may stop inside runs in a thread of its own, which enters autocast, grad mode,
    default device, modes and CUDA stream of the thread that asked for it.

    Attributes:
        statistics: whether every module's output and gradient are counted into histograms.
        gauges: what was counted.
    """

    def __init__(self, model: Any, step_fn: Callable[..., Any], **options: Any) -> None:
        super().__init__(model, step_fn, **options)
        self.statistics = False
        self.gauges = Gauges()
        self.stepper = Stepper()
        self._halts = False
        _hunts[:] = [*(ref for ref in _hunts if ref() is not None), weakref.ref(self)]

    def __repr__(self) -> str:
        if self._closed:
            return "<Hunt, closed>"
        return f"<Hunt, {self.here or f'at the start of step {self.position}'}>"

    # -- whole steps ----------------------------------------------------------------------------

    def step(self, *, examine: bool = True) -> Finding | None:
        """Runs one step, or what is left of a paused one, to a breakpoint or its end.

        Args:
            examine: as in `run`.

        Returns:
            The finding when the step went bad; it is then undone.
        """
        self._check_free()
        if self.stepper.is_worker or not (self.stepper.breakpoints or self.here):
            return super().step(examine=examine)
        before = self.findings
        if self.here is not None:
            self._go(RESUME)
        else:
            self._start(f"step {self.position}", lambda: self.step(examine=examine))
        return next((f for f in self.findings if f not in before), None)

    def run(self, steps: int | None = 100, *, examine: bool = True) -> Report:
        """Runs up to `steps` steps, to a failure, a breakpoint or Ctrl-C.

        Args:
            steps: how many; None for as many as there are data.
            examine: False to leave a bad step unexplained: it is undone, and `bad` names what
                was not finite.
        """
        self._check_free()
        self._halts = False
        if self.stepper.is_worker or not self.stepper.breakpoints:
            return super().run(steps, examine=examine)
        self._start("run", lambda: self.run(steps, examine=examine))
        return self.report

    def halt(self) -> None:
        """Asks a `run` that goes on in another thread to end after the step it is in."""
        self._halts = True

    def replay(self) -> str:
        """Runs the last step once more from its start, with statistics; its prints are swallowed.

        Returns:
            `"bit_exact"` when it ended as before: the same failure, or the same bits in
            parameters, gradients, buffers and optimizer state. Else `"not_reproduced"`.

        Raises:
            UsageError: no step has been run, or the last one cannot be undone.
        """
        self._check_free()
        if self.here is not None:
            raise HuntBusyError("a step is on; finish it (resume) or undo it (back) first")
        if not self.steps_run:
            raise UsageError("no step has been run yet, so there is none to replay")
        undone = self.undone
        failed = undone and (self.bad or self._found_here())
        kept, self.statistics = self.statistics, True
        try:
            with printed_to(unheard):
                same = self._fails_again() if failed else self._ends_alike(undone)
        finally:
            self.statistics = kept
        return "bit_exact" if same else "not_reproduced"

    def _found_here(self) -> bool:
        """Whether the step at whose start the training stands is known to fail."""
        return any(f.severity == "critical" and f.step == self.position for f in self.findings)

    def _fails_again(self) -> bool:
        before = self.bad  # nothing where it was examined: that stands in the report
        super().step(examine=False)
        return bool(self.bad) and before in ((), self.bad)

    def _ends_alike(self, undone: bool) -> bool:
        """Runs a healthy step again; one that was undone is run twice, and undone again."""
        if undone:
            super().step(examine=False)
        before = self._marks()
        self.back()
        super().step(examine=False)
        same = bool(self._marks() == before)
        if undone:
            self.back()
        return same

    def back(self) -> int:
        """Undoes the paused or the last step; where that is undone already, the one before.

        Returns:
            The step at whose start the training stands now.
        """
        if self.stepper.is_worker or self.stepper.state == "idle":
            return super().back()
        self.stepper.end()  # which undoes the step that is on
        return self.position

    def close(self) -> None:
        """Undoes a step that is on, and lets go of everything that was kept."""
        self.stepper.end()
        super().close()
        self.gauges.clear()

    # -- inside a step --------------------------------------------------------------------------

    @property
    def here(self) -> Here | None:
        """Where the step is paused: module and tensors, until it goes on."""
        return self.stepper.here

    def into(self) -> Here | None:
        """Goes on to the next moment of any module; from between two steps into the next one.

        Returns:
            Where the step is paused, or None when it has ended.
        """
        return self._command(INTO)

    def over(self) -> Here | None:
        """Goes on without stopping inside the module at hand."""
        return self._command(OVER)

    def out(self) -> Here | None:
        """Goes on until the module around the one at hand has run."""
        return self._command(OUT)

    def resume(self) -> Here | None:
        """Goes on to the next breakpoint or to the end of what was being done."""
        return self._command(RESUME)

    def _command(self, how: str) -> Here | None:
        if self.here is not None:
            self._go(how)
        else:
            begin = RESUME if how == RESUME else INTO
            name = f"step {self.position}"
            self._start(name, lambda: self.step(examine=False), begin)
        return self.here

    # -- breakpoints ----------------------------------------------------------------------------

    def break_at(
        self, where: str, condition: Condition = None, *, phase: str = "forward"
    ) -> Breakpoint:
        """Stops every step at modules of this name, class or pattern; see `Breakpoint`.

        Raises:
            UsageError: no module is called so, or the condition cannot be read.
        """
        made = Breakpoint(where, condition, phase)
        kinds = {name: type(module).__name__ for name, module in self.module_tree().items()}
        if not any(made.matches(name, kind) for name, kind in kinds.items()):
            raise UsageError(
                f"no module is called {where!r}, by name or class. There are, for example, "
                f"{', '.join(repr(n) for n in list(kinds)[:6])}"
            )
        self.stepper.breakpoints.append(made)
        return made

    def clear_breakpoints(self, *breakpoints: Breakpoint) -> None:
        """Removes these, or all."""
        kept = [b for b in self.stepper.breakpoints if breakpoints and b not in breakpoints]
        self.stepper.breakpoints = kept

    @property
    def breakpoints(self) -> tuple[Breakpoint, ...]:
        """Those that are set."""
        return tuple(self.stepper.breakpoints)

    # -- what is kept ---------------------------------------------------------------------------

    @property
    def memory(self) -> tuple[int, int]:
        """Bytes held in snapshots, and how many earlier steps they can undo."""
        return self._course.ring.nbytes, len(self._course.ring)

    def module_tree(self) -> dict[str, torch.nn.Module]:
        """Every module by its qualified name, parents first."""
        return self._target.named

    @property
    def plot(self) -> Plots:
        """Figures of what was measured."""
        from nanhunt.plots import Plots  # matplotlib is loaded when a figure is wanted

        return Plots(self.gauges, self.module_tree())

    # -- inside ---------------------------------------------------------------------------------

    def _start(self, name: str, job: Callable[[], Any], how: str = RESUME) -> None:
        """Runs a job in the worker for the caller, who waits until it ends or is paused."""
        self.stepper.start(name, job, Ambient(), how)
        self._wait()

    def _go(self, how: str) -> None:
        self.stepper.go(how)
        self._wait()

    def _wait(self) -> None:
        try:
            while not self.stepper.wait(0.2):  # a wait without end would hold Ctrl-C back
                pass
        except KeyboardInterrupt:
            self.stepper.end()
            raise
        if self.stepper.state != PAUSED and self.stepper.error is not None:
            error, self.stepper.error = self.stepper.error, None
            raise error

    @contextlib.contextmanager
    def _inside(self, activity: Activity) -> Iterator[None]:
        if self.stepper.is_worker:
            self.stepper.begin_step()
        stops = self.stepper.is_worker and self.stepper.may_stop
        if not (stops or self.statistics):
            yield
            return
        watch = StepHooks(
            self._target,
            self._course.number,
            activity,
            self._sentinel.ignoring,
            self.gauges if self.statistics else None,
            self.stepper.at if stops else None,
        )
        with _eager() if self._target.compiled else contextlib.nullcontext(), watch:
            yield
        if stops:
            self.stepper.end_if_abandoned()

    def _halted(self) -> bool:
        return self._halts or (self.stepper.is_worker and self.stepper.halted())

    def _check_free(self) -> None:
        if self.stepper.state == RUNNING and not self.stepper.is_worker:
            raise HuntBusyError(f"the hunt is running ({self.stepper.job}); pause it first")

    def _marks(self) -> Any:
        facts = self._replayer().exact_facts()
        return facts.prints


def _eager() -> AbstractContextManager[Any]:
    """Compiled modules run uncompiled: there is nothing to stop at inside compiled code."""
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


__all__ = ["Hunt", "hunt", "last_hunt"]
