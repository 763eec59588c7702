"""A script, run as Python would run it, with its training watched from outside.

Nothing is known of the script's model. The first time that a module is called with gradients on
while there is an optimizer, or that an optimizer is about to step, the modules that hold the
optimizers' parameters are looked up, and from then on the loop is watched as a `%%nanhunt`
cell's is.
"""

from __future__ import annotations

import gc
import runpy
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from nanhunt.core.attached.patches import patch
from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.guard import bundle as bundles
from nanhunt.core.guard.watch import Loaders
from nanhunt.core.hunting.loop import LoopHunt
from nanhunt.core.program.target import innermost, parameters_of
from nanhunt.core.snapshot.installed import Installed
from nanhunt.core.snapshot.random_state import RandomState
from nanhunt.core.snapshot.reachable import Surroundings
from nanhunt.core.watch.step_facts import StepFacts
from nanhunt.errors import HuntBusyError
from nanhunt.records.report import Report
from nanhunt.torch_private import is_made, is_tracing


class ScriptRun:
    """Runs one script and watches its training.

    Args:
        folder: where to write the bundle of the failing step; None for no bundle.

    Attributes:
        report: what has been found; None when nothing was trained.
        bundle: the file that was written, or None.
        trouble: why there is no bundle, or an empty string.
        aside: whether the script has a guard or a hunt of its own, so that nothing was watched.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.aside = False
        self._hunt: _ScriptHunt | None = None
        self._tape = Loaders(self._before_batch)
        self._installed = Installed(self._tape, Surroundings(None))
        self._optimizers: list[weakref.ref[Optimizer]] = []
        self._searched: set[int] = set()  # the parameters whose modules were looked for
        self._undo: list[Callable[[], None]] = []
        # Optimizers with a hook of ours, and what takes it off; an address may be a later one's.
        self._told_by: list[tuple[weakref.ref[Optimizer], Callable[[], None]]] = []

    @property
    def report(self) -> Report | None:
        """What has been found; None when nothing was trained."""
        return self._hunt.report if self._hunt is not None else None

    @property
    def bundle(self) -> Path | None:
        """The file that was written of the failing step."""
        return self._hunt.bundle if self._hunt is not None else None

    @property
    def trouble(self) -> str:
        """Why there is no bundle, or an empty string."""
        return self._hunt.trouble if self._hunt is not None else ""

    def run(self, script: str, arguments: Sequence[str]) -> None:
        """Runs the script as `python script arguments` would, up to the first bad step.

        Raises:
            BaseException: whatever the script raises, unchanged.
        """
        with self, _as_main_program(script, arguments):
            runpy.run_path(script, run_name="__main__")

    def __enter__(self) -> ScriptRun:
        with uninterrupted():
            self._patch(Optimizer, "__init__", self._note_optimizer)
            self._patch(nn.Module, "__call__", self._before_call)
            self._undo.append(register_optimizer_step_pre_hook(self._before_update).remove)
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        with uninterrupted():
            self._stop_scouting()
            for _, remove in self._told_by:
                remove()
        if self._hunt is None:
            return False
        try:
            if isinstance(error, SystemExit):  # a script's ordinary end
                return self._hunt.__exit__(None, None, None)
            swallowed = self._hunt.__exit__(kind, error, traceback)
        finally:
            self._installed.__exit__()
        return swallowed and not isinstance(error, KeyboardInterrupt)

    def _before_batch(self) -> None:
        if self._hunt is None or not self._hunt.has_called:
            self._tape.next_step()  # those of an evaluation are not kept

    # -- before the training has begun ------------------------------------------------------------

    def _patch(self, owner: Any, name: str, before: Callable[..., None]) -> None:
        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            def watched(*args: Any, **kwargs: Any) -> Any:
                before(*args)
                return original(*args, **kwargs)

            return watched

        # The script may train in a thread of its own.
        self._undo.append(patch(owner, name, make, every_thread=True))

    def _stop_scouting(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _note_optimizer(self, optimizer: Optimizer, *_: Any) -> None:
        self._optimizers.append(weakref.ref(optimizer))

    def _before_call(self, module: nn.Module, *_: Any) -> None:
        # Another thread was first, or torch.jit.trace calls its own copy of a model, once.
        if not torch.is_grad_enabled() or not self._undo or is_tracing():
            return
        self._look_around(lambda wanted: _holds(module, wanted))

    def _before_update(self, optimizer: Optimizer, *_: Any) -> None:
        # While hooks of a kind are called, none may come or go. An optimizer's own are called
        # after the global ones.
        told = any(known() is optimizer for known, _ in self._told_by)
        if not told and innermost(optimizer) is optimizer:
            handle = optimizer.register_step_pre_hook(self._at_update)
            living = [each for each in self._told_by if each[0]() is not None]
            self._told_by = [*living, (weakref.ref(optimizer), handle.remove)]

    def _at_update(self, optimizer: Optimizer, *_: Any) -> None:
        """Weights may be read without that any module is called, or in a closure of the update."""
        if self._undo:
            self._look_around(lambda wanted: wanted != self._searched)
            if self._hunt is not None:
                self._hunt.joined(optimizer)

    def _look_around(self, uses: Callable[[set[int]], bool]) -> None:
        """Begins to watch if there are models now.

        Args:
            uses: whether what happens now has to do with these parameters.
        """
        optimizers = [o for o in (ref() for ref in self._optimizers) if o is not None]
        optimizers = [
            o for o in optimizers if hasattr(o, "param_groups")
        ]  # made, not in the making
        wanted = _wanted(optimizers)
        # All of memory is searched only when there is reason to: a script that optimizes an image
        # calls a network again and again that holds nothing of it.
        if not wanted or not uses(wanted):
            return
        self._searched = wanted
        models = models_of(optimizers)
        if not models:
            return
        self._stop_scouting()
        hunt = _ScriptHunt(models, self._tape, self._folder)
        with uninterrupted():
            try:
                self._installed.__enter__()
            except HuntBusyError:
                self.aside = True
                return
            self._hunt = hunt
            hunt.__enter__()


class _ScriptHunt(LoopHunt):
    """Keeps a bundle of the step that it has found to be bad."""

    def __init__(self, models: dict[str, nn.Module], tape: Loaders, folder: Path | None) -> None:
        model = next(iter(models.values())) if len(models) == 1 else models
        # The script may have modes of its own on torch's stack, and ours would not be the last.
        super().__init__(model, complex_half=False, progress=False)
        self._tape, self._folder = tape, folder
        self.bundle: Path | None = None
        self.trouble = ""

    def joined(self, optimizer: Optimizer) -> None:
        """An optimizer is about to step, and its hooks are being called already."""
        self._sentinel.before_update_of(optimizer)

    @property
    def has_called(self) -> bool:
        """Whether the model has been called in this step."""
        return bool(self._calls.calls)

    def _begin(self) -> None:
        self._tape.next_step()
        super()._begin()

    def _examine(self, facts: StepFacts) -> None:
        super()._examine(facts)
        finding = self.report.finding
        if finding is None or self._folder is None:
            return
        try:
            self.bundle = bundles.write(self._folder, self._content(finding.reaches))
        except bundles.NOT_WRITTEN as error:
            self.trouble = str(error)

    def _handed_out(self) -> list[Any]:
        return self._tape.batches()[0]

    def _content(self, bad: Iterable[str]) -> dict[str, Any]:
        """The state stands at the start of the step."""
        calls = [(call.args, call.kwargs) for call in self._calls.calls]
        given = bundles.Given(*self._tape.batches(), False, calls)
        made = [random for _, end, random in self._tape.items if end is None]
        return bundles.content_of(
            self._target,
            self._optimizers,
            self._scalers,
            given,
            self._ledger.steps_run - 1,
            tuple(bad),
            made[0] if made else RandomState.now(),
        )


def models_of(optimizers: Iterable[Optimizer]) -> dict[str, nn.Module]:
    """The outermost modules that hold parameters of the optimizers, by their names.

    A name is that of a variable of the program where there is one, or the class's.
    """
    wanted = _wanted(optimizers)
    # `type(...)` instead of isinstance: proxies in memory may act on `__class__`.
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module)]
    holders = [m for m in modules if _holds(m, wanted)]
    # A scripted or traced copy shares its parameters with the model it was made from.
    plain = [m for m in holders if not isinstance(m, torch.jit.ScriptModule)]
    others = wanted - {id(p) for m in plain for p in m.parameters()}
    scripted = [m for m in holders if isinstance(m, torch.jit.ScriptModule)]
    holders = [*plain, *(m for m in scripted if _holds(m, others))]
    inner = {id(child) for m in holders for child in m.modules() if child is not m}
    named: dict[str, nn.Module] = {}
    variables = {id(value): name for name, value in vars(sys.modules["__main__"]).items()}
    for module in (m for m in holders if id(m) not in inner):
        name = base = variables.get(id(module), type(module).__name__.lower())
        number = 1
        while name in named:
            number += 1
            name = f"{base} {number}"
        named[name] = module
    return named


def _wanted(optimizers: Iterable[Optimizer]) -> set[int]:
    return {id(p) for optimizer in optimizers for p in parameters_of(optimizer)}


def _holds(module: nn.Module, wanted: set[int]) -> bool:
    """Whether a module, or one within it, has one of these parameters."""
    if not wanted or not is_made(module):
        return False
    return any(id(parameter) in wanted for parameter in module.parameters())


def script_frames(traceback: types.TracebackType | None, script: str) -> types.TracebackType | None:
    """A traceback without the frames of what ran the script."""
    first = traceback
    while first is not None and first.tb_frame.f_code.co_filename != script:
        first = first.tb_next
    return first or traceback


@contextmanager
def _as_main_program(script: str, arguments: Sequence[str]) -> Iterator[None]:
    argv, path = sys.argv, list(sys.path)
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path
