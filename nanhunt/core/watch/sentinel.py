"""The watch over one step: what it costs is a few sums and one synchronisation.

While a step runs, the losses, the gradients that are about to be used, the buffers, and after
each update the parameters and optimizer states are reduced on their device. At the end of the
step everything is read at once. In the exact form, used in replays, each tensor is tested on
the spot and named.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from nanhunt.core.attached.ours import ours
from nanhunt.core.attached.patches import is_elsewhere, patch
from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.observe.observer import Activity, Observer
from nanhunt.core.program.target import Target, innermost, parameters_of
from nanhunt.core.snapshot.snapshot import Snapshot
from nanhunt.core.tensors.stats import (
    count_bad,
    exact_screen,
    fingerprint,
    largest,
    plain_tensors,
    screen,
)
from nanhunt.core.watch.step_facts import Sink, StepFacts
from nanhunt.torch_private import found_inf, takes_loss_scale

_T = TypeVar("_T")

# Optimizers whose update carries every NaN and Inf of a gradient into the parameter: all of
# their formulas are sums, products and quotients of it (an Inf meets itself as Inf / Inf). What
# they are given shows in the parameters, which are looked at after the update and undone.
# Sign-based ones (Rprop) are not here: they turn an Inf into a step of ordinary size.
_CARRY_GRADIENTS_ON = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
# First moments are linear in the gradients and go linearly into the parameters, likewise.
_FIRST_MOMENTS = frozenset({"exp_avg", "momentum_buffer"})


class Sentinel:
    """Installs the watch for the duration of a `with` block around one step or a whole loop.

    Args:
        target: the model.
        snapshot: told before an optimizer writes; None in replays of single parts.
        optimizers, scalers: known ones; those that show up are appended.
        exact: test every tensor on the spot, name the bad ones, take fingerprints.
        keep_gradients: copy the gradients that updates are given.
        hidden_gradients: look at gradients after each backward already, since the step replaces
            what is not finite in them before its update.
        thrown_away: look at gradients that `zero_grad` takes away before any update has used them.
        observer: gives sinks their memory and time in exact mode.
    """

    def __init__(
        self,
        target: Target,
        snapshot: Snapshot | None,
        optimizers: list[Optimizer],
        scalers: list[GradScaler],
        *,
        exact: bool = False,
        count_skipped: bool = False,
        keep_gradients: bool = False,
        observer: Observer | None = None,
        acquitted: Iterable[str] = (),
        exact_labels: Iterable[str] = (),
        activity: Activity | None = None,
        hidden_gradients: bool = False,
        thrown_away: bool = False,
    ) -> None:
        self._target = target
        self._snapshot = snapshot
        self._optimizers = optimizers
        self._scalers = scalers
        self._exact = exact
        self._count_skipped = count_skipped
        self._keep_gradients = keep_gradients
        self.hidden_gradients = hidden_gradients
        self._thrown_away = thrown_away
        self._waiting = False  # gradients of a backward that nothing has used yet
        self._observer = observer
        self._acquitted = frozenset(acquitted)
        self._exact_labels = frozenset(exact_labels)
        self.activity = activity or Activity()
        self.facts = StepFacts()
        self.on_failure: Callable[[Exception], None] | None = None  # of ours; None: it is raised
        self.off = False  # nothing is looked at any more
        self.before_update: Callable[[Optimizer], None] | None = None
        self.after_update: Callable[[Optimizer], None] | None = None
        self.after_skip: Callable[[Optimizer], None] | None = None
        self.before_backward: Callable[[], None] | None = None
        self.after_backward: Callable[[], None] | None = None
        self.before_zeroing: Callable[[Any], None] | None = None
        self._undo: list[Callable[[], None]] = []
        self._running: list[Optimizer] = []  # whose update has begun
        self._scaler_decides = False
        self._in_scaler_step = False
        self._scaled: list[weakref.ref[Tensor]] = []  # losses that a scaler has multiplied

    def __enter__(self) -> Sentinel:
        self._thread = threading.get_ident()
        with uninterrupted():
            self._undo = [
                register_optimizer_step_pre_hook(self._before_update).remove,
                register_optimizer_step_post_hook(self._after_update).remove,
            ]
            for owner, name, make in (
                (torch.autograd, "backward", self._watched_backward),
                (GradScaler, "scale", _if_enabled(self._watched_scale)),
                (GradScaler, "step", _if_enabled(self._watched_scaler_step)),
                (GradScaler, "unscale_", _if_enabled(self._watched_unscale)),
            ):
                self._undo.append(patch(owner, name, make))
            if self._thrown_away:
                for zeroing in (Optimizer, torch.nn.Module):
                    self._undo.append(patch(zeroing, "zero_grad", self._watched_zeroing))
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            while self._undo:
                self._undo.pop()()

    def _look(self, look: Callable[[], object]) -> None:
        """Looks at something; after a failure of that, nothing is looked at any more."""
        if not self.off:
            with ours(self._failed if self.on_failure is not None else None):
                look()

    def _failed(self, error: Exception) -> None:
        assert self.on_failure is not None
        self.on_failure(error)
        self.off = True

    # -- losses -----------------------------------------------------------------------------

    def _watched_backward(self, original: Any) -> Any:
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            # Reentrant checkpointing calls backward on its own outputs: no losses.
            if self.activity.in_backward():
                return self._counted("backward", original, tensors, *args, **kwargs)
            self._look(lambda: self._before_backward(tensors))
            try:
                return self._counted("backward", original, tensors, *args, **kwargs)
            finally:
                self._look(self._after_backward)

        return backward

    def _before_backward(self, tensors: Any) -> None:
        self.facts.backwards += 1
        if self.before_backward is not None:
            self.ignoring(self.before_backward)
        if not self.facts.scaled:
            for tensor in plain_tensors(tensors):
                self._see_loss(tensor)

    def _after_backward(self) -> None:
        if self.after_backward is not None:
            self.after_backward()
        self._waiting = True
        if self.hidden_gradients:
            self._check_before_loss("replaced")

    def _counted(self, what: str, original: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls something of torch's, in which the activity is what it says."""
        setattr(self.activity, what, getattr(self.activity, what) + 1)
        try:
            return original(*args, **kwargs)
        finally:
            setattr(self.activity, what, getattr(self.activity, what) - 1)

    def _watched_scale(self, original: Any) -> Any:
        def scale(scaler: GradScaler, outputs: Any) -> Any:
            # The scaled loss may overflow on purpose: the scale is being probed.
            self._know_scaler(scaler)
            self.facts.scaled = True
            self._look(lambda: self._before_scaling(outputs))
            scaled = original(scaler, outputs)
            living = [known for known in self._scaled if known() is not None]
            self._scaled = [*living, *map(weakref.ref, plain_tensors(scaled))]
            return scaled

        return scale

    def _before_scaling(self, outputs: Any) -> None:
        for tensor in plain_tensors(outputs):
            if any(known() is tensor for known in self._scaled):
                self.facts.scaled_twice = True
            else:
                self._see_loss(tensor)

    def _see_loss(self, loss: Tensor) -> None:
        # A step often returns the very tensor it called backward on, detached.
        if any(_same_values(known, loss) for known in self.facts.losses):
            return
        self.facts.losses.append(loss)
        number = len(self.facts.losses)
        name = "loss" if number == 1 else f"loss {number}"
        self._check("loss", name, [(name, loss)])

    # -- gradients that no update will see ----------------------------------------------------

    def _watched_zeroing(self, original: Any) -> Any:
        def zero_grad(owner: Any, *args: Any, **kwargs: Any) -> Any:
            # The closure of an optimizer, called inside its step, tries places and leaves them.
            if not is_elsewhere(self._thread) and not self.activity.optimizer:
                self._look(lambda: self._before_zeroing(owner))
            return original(owner, *args, **kwargs)

        return zero_grad

    def _before_zeroing(self, owner: Any) -> None:
        if self.before_zeroing is not None:
            self.before_zeroing(owner)
        if self._waiting:
            self._waiting = False
            self._check_before_loss("thrown away")

    def _check_before_loss(self, fate: str) -> None:
        """Looks at gradients that are about to be replaced or thrown away, so exactly.

        Those of a scaled loss may have overflowed on purpose; replays at a scale of 1 tell.
        """
        if self._exact:
            if self._count_skipped or not self.facts.scaled:
                for optimizer in self._optimizers:
                    self._check_gradients(optimizer)
            return
        label = f"{'scaled ' * self.facts.scaled}gradients, {fate}"
        self._exact_labels |= {label}
        grads = [
            (name, parameter.grad)
            for optimizer in self._optimizers
            for name, parameter in self._target.named_parameters(optimizer)
            if parameter.grad is not None
        ]
        self._check("gradient", label, grads)

    # -- scalers ----------------------------------------------------------------------------

    def _watched_scaler_step(self, original: Any) -> Any:
        def step(scaler: GradScaler, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            facts = self.facts  # an update may be the end of a step, and then there are new ones
            updates = len(facts.stepped)
            # Fused optimizers are always called, and leave out the update themselves.
            inside = takes_loss_scale(optimizer)
            self._scaler_decides = inside
            self._in_scaler_step = True
            try:
                result = self._counted("optimizer", original, scaler, optimizer, *args, **kwargs)
            finally:
                self._scaler_decides = self._in_scaler_step = False
            if inside and found_inf(scaler, optimizer):
                del facts.stepped[updates:]
            if len(facts.stepped) == updates:
                self._look(lambda: self._after_skip(scaler, innermost(optimizer)))
            return result

        return step

    def _after_skip(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        self._know_scaler(scaler)
        self._waiting = False
        self.facts.skipped.append((scaler, optimizer))
        if self._count_skipped:
            self._check_gradients(optimizer)
        if self.after_skip is not None:
            self.after_skip(optimizer)

    def _watched_unscale(self, original: Any) -> Any:
        def unscale_(scaler: GradScaler, optimizer: Optimizer) -> Any:
            return self._counted("optimizer", original, scaler, optimizer)

        return unscale_

    def _know_scaler(self, scaler: GradScaler) -> None:
        if not any(known is scaler for known in self._scalers):
            self._scalers.append(scaler)

    # -- updates ----------------------------------------------------------------------------

    def _before_update(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if is_elsewhere(self._thread) or innermost(optimizer) is not optimizer:
            return
        self.before_update_of(optimizer)

    def _after_update(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if is_elsewhere(self._thread) or not any(o is optimizer for o in self._running):
            return
        self._running = [o for o in self._running if o is not optimizer]
        self.activity.optimizer -= 1
        self._look(lambda: self._look_at_update(optimizer))

    def before_update_of(self, optimizer: Optimizer) -> None:
        """An optimizer is about to step; also called by who knows that before the hooks do."""
        self._look(lambda: self._look_before_update(optimizer))
        self._running.append(optimizer)
        self.activity.optimizer += 1

    def _look_before_update(self, optimizer: Optimizer) -> None:
        if not any(known is optimizer for known in self._optimizers):
            self._optimizers.append(optimizer)
        self._waiting = False
        if self._snapshot is not None:
            snapshot = self._snapshot
            self.quietly(lambda: snapshot.before_optimizer(optimizer))
        self.facts.stepped.append(optimizer)
        if not self.facts.had_gradients:
            grads = (parameter.grad for parameter in parameters_of(optimizer))
            self.facts.had_gradients = any(grad is not None for grad in grads)
        self.facts.plain_step_with_scaler |= self.facts.scaled and not self._in_scaler_step
        undoable = self._snapshot is not None and not self._snapshot.missing
        carried_on = type(optimizer) in _CARRY_GRADIENTS_ON and undoable and not self._exact
        if not carried_on and not self._scaler_decides:
            self._check_gradients(optimizer)
        if self.before_update is not None:
            self.before_update(optimizer)

    def _look_at_update(self, optimizer: Optimizer) -> None:
        number = self._number(optimizer)
        self._check("parameter", f"parameters {number}", self._target.named_parameters(optimizer))
        state = self._target.named_state(optimizer)
        if not self._exact and type(optimizer) in _CARRY_GRADIENTS_ON:
            state = [(n, t) for n, t in state if n.rpartition(".")[2] not in _FIRST_MOMENTS]
        self._check("state", f"state {number}", state)
        if self.after_update is not None:
            after_update = self.after_update
            self.ignoring(lambda: after_update(optimizer))

    def quietly(self, function: Callable[[], _T]) -> _T:
        """Calls something of nanhunt's, which is no part of the step, unobserved."""
        return self._observer.quietly(function) if self._observer is not None else function()

    def ignoring(self, function: Callable[[], _T]) -> _T:
        """Calls something unobserved that is no part of the step, but may end the observation."""
        return self._observer.ignoring(function) if self._observer is not None else function()

    def _number(self, optimizer: Optimizer) -> int:
        return next(i for i, known in enumerate(self._optimizers) if known is optimizer)

    def _check_gradients(self, optimizer: Optimizer) -> None:
        named = [
            (n, p.grad) for n, p in self._target.named_parameters(optimizer) if p.grad is not None
        ]
        self._check("gradient", f"gradients {self._number(optimizer)}", named)
        if self._keep_gradients:
            self.facts.gradients.update((name, grad.detach().clone()) for name, grad in named)

    # -- the end of the step ----------------------------------------------------------------

    def finish(self, returned: Any = None) -> StepFacts:
        """Looks at what is left at the end of a step and reads everything at once."""
        facts = self.facts
        facts.returned = returned
        for tensor in _loss_tensors(returned):
            self._see_loss(tensor)
        if not facts.stepped and not facts.skipped and (facts.backwards or self._exact):
            # Gradients that wait for a later update are not to be lost by then.
            for optimizer in self._optimizers:
                self._check_gradients(optimizer)
        if self._exact or not any(map(self._target.owns, self._optimizers)):
            # Parameters that no optimizer updates: by hand, from copies that one does update, or
            # as somebody's running average.
            self._check("parameter", "parameters", self._target.parameters.items())
        buffers = [(n, b) for n, b in self._target.buffers() if n not in self._acquitted]
        self._check("buffer", "buffers", buffers)
        if self._exact:
            self._take_prints(buffers)
        elif facts.screens:
            self._read(facts)
        if _bad_number(returned):
            facts.suspects.append("returned number")
        return facts

    def _read(self, facts: StepFacts) -> None:
        """The one synchronisation of a step: all screens, and how large the loss is."""
        labels, values = list(facts.screens), list(facts.screens.values())
        size = self.quietly(lambda: largest(facts.losses[-1:]))
        device = values[0].device
        extra = [size] if size is not None else []
        numbers = torch.stack([value.to(device) for value in (*values, *extra)]).tolist()
        pairs = zip(labels, numbers, strict=False)
        bad = [label for label, value in pairs if not math.isfinite(value)]
        facts.note_lost(label for label in bad if ", " in label)
        facts.suspects += [label for label in bad if ", " not in label]
        if size is not None:
            facts.loss_size = numbers[-1]

    def test_exactly(self, labels: Iterable[str]) -> None:
        """From here on no finite values, however large, trip the screens of these labels."""
        self._exact_labels |= frozenset(labels)

    def stop_observing(self) -> None:
        """From here on nobody observes the operations of the steps."""
        self._observer = None

    def _take_prints(self, buffers: list[tuple[str, Tensor]]) -> None:
        prints = self.facts.prints
        for optimizer in self._optimizers:
            for name, parameter in self._target.named_parameters(optimizer):
                prints.append((name, fingerprint(parameter)))
                if parameter.grad is not None:
                    prints.append((f"gradient of {name}", fingerprint(parameter.grad)))
            for name, value in self._target.named_state(optimizer):
                prints.append((name, fingerprint(value)))
        for name, buffer in buffers:
            prints.append((name, fingerprint(buffer)))
        prints.extend(("loss", fingerprint(loss)) for loss in self.facts.losses)

    def _check(self, kind: str, label: str, named: Collection[tuple[str, Tensor]]) -> None:
        if self._exact:
            self.facts.sinks.extend(self.quietly(lambda: list(self._bad_ones(kind, named))))
            return
        test = exact_screen if label in self._exact_labels else screen
        tensors = [tensor for _, tensor in named]
        flag = self.quietly(lambda: test(tensors))
        if flag is None:
            return
        before = self.facts.screens.get(label)
        self.facts.screens[label] = flag if before is None else before + flag

    def _bad_ones(self, kind: str, named: Iterable[tuple[str, Tensor]]) -> Iterator[Sink]:
        for name, tensor in named:
            nan, posinf, neginf = count_bad(tensor)
            if nan or posinf or neginf:
                region = self._observer.storages.region(tensor) if self._observer else None
                index = self._observer.count if self._observer else 0
                yield Sink(kind, name, region, nan, posinf + neginf, index)


def _if_enabled(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A method of GradScaler that is watched on enabled ones alone: others only hand on."""

    def make_method(original: Any) -> Any:
        watched = make(original)

        def method(scaler: GradScaler, *args: Any, **kwargs: Any) -> Any:
            return (watched if scaler.is_enabled() else original)(scaler, *args, **kwargs)

        return method

    return make_method


def _same_values(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors, both alive, are the same memory read in the same way.

    The first of several losses begins where all of them do.
    """
    return first is second or (
        first.data_ptr() == second.data_ptr()
        and first.shape == second.shape
        and first.dtype == second.dtype
        and first.stride() == second.stride()
    )


def _loss_part(returned: Any) -> Any:
    """The part of a step's return value that is its loss: itself, the entries of a dict that
    are called so, or the first of a tuple (logits may hold a mask's infinities).
    """
    if isinstance(returned, dict):
        return [value for key, value in returned.items() if "loss" in str(key).lower()]
    if isinstance(returned, tuple):
        return returned[:1]
    return returned


def _loss_tensors(returned: Any) -> list[Tensor]:
    tensors = plain_tensors(_loss_part(returned), depth=2)
    return [t for t in tensors if t.is_floating_point() or t.is_complex()]


def _bad_number(returned: Any) -> bool:
    part = _loss_part(returned)
    numbers = part if isinstance(part, tuple | list) else [part]
    return any(isinstance(n, float) and not math.isfinite(n) for n in numbers)
