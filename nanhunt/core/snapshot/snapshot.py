"""Everything a training step may change, kept so that the step can be undone and run again.

Parameters are copied when the step begins, for a forward pass may write them too (codebooks,
weights that are clipped or normalised), through `.data` unseen by any version counter. What an
optimizer keeps of them is twice as much and only its own update writes it: copied just before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.program.target import Target, parameters_of
from nanhunt.core.snapshot.copies import Copies, NoMemoryError, check_room
from nanhunt.core.snapshot.lazily import LazyState
from nanhunt.core.snapshot.random_state import Generators, RandomState
from nanhunt.core.snapshot.reachable import ContainerState, Slot, Surroundings, stands_for
from nanhunt.core.tensors.stats import plain_tensors
from nanhunt.torch_private import SCALER_STATES, buffers_in, parameters_in, scaler_states


class _Modules:
    """Attributes, training flags, and which parameters and buffers hang where."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._kept = [
            (
                module,
                module.__dict__.copy(),
                dict(parameters_in(module).items()),
                dict(buffers_in(module).items()),
                {k: list(v) for k, v in module.__dict__.items() if type(v) is list},
            )
            for module in modules
        ]

    def restore_buffers(self) -> None:
        """Hangs back the buffers alone."""
        for module, _, _, buffers, _ in self._kept:
            if isinstance(buffers_in(module), dict):
                _put_back(buffers_in(module), buffers)

    def restore(self) -> None:
        for module, attributes, parameters, buffers, lists in self._kept:
            for key in [key for key in module.__dict__ if key not in attributes]:
                del module.__dict__[key]
            module.__dict__.update(attributes)
            if isinstance(parameters_in(module), dict):  # scripted modules keep theirs in C++
                _put_back(parameters_in(module), parameters)
                _put_back(buffers_in(module), buffers)
            for key, items in lists.items():
                attributes[key][:] = items


def _put_back(live: dict[str, Any], kept: dict[str, Any]) -> None:
    for key in [key for key in live if key not in kept]:
        del live[key]
    live.update(kept)


class _OptimizerState:
    """Hyperparameters and the structure of the state; its tensors are copied elsewhere."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._groups = [
            {k: list(v) if type(v) is list else v for k, v in group.items()}
            for group in optimizer.param_groups
        ]
        self._state = {
            key: dict(value) if isinstance(value, dict) else value
            for key, value in optimizer.state.items()
        }
        # L-BFGS keeps its history in lists.
        entries = (
            e for value in self._state.values() if isinstance(value, dict) for e in value.values()
        )
        self._lists = [(entry, list(entry)) for entry in entries if type(entry) is list]

    def restore(self) -> None:
        for live_list, items in self._lists:
            live_list[:] = items
        groups = self.optimizer.param_groups
        del groups[len(self._groups) :]
        for live, kept in zip(groups, self._groups, strict=True):
            _put_back(live, kept)
        state = self.optimizer.state
        for key in [key for key in state if key not in self._state]:
            del state[key]
        for key, value in self._state.items():
            if isinstance(value, dict) and isinstance(state.get(key), dict):
                _put_back(state[key], value)
            else:
                state[key] = value


class ScalerState:
    """A scaler's scale, its growth, and what it knows of its optimizers."""

    def __init__(self, scaler: GradScaler) -> None:
        self._scaler = scaler
        self._kept = {
            key: value.clone() if isinstance(value, Tensor) else value
            for key, value in scaler.__dict__.items()
            if key != SCALER_STATES
        }
        self._refs = dict(scaler.__dict__)
        self._per_optimizer = {key: dict(value) for key, value in scaler_states(scaler).items()}

    def restore(self) -> None:
        """Puts everything back."""
        for key, value in self._kept.items():
            if isinstance(value, Tensor):
                self._refs[key].copy_(value)
                value = self._refs[key]
            self._scaler.__dict__[key] = value
        states = scaler_states(self._scaler)
        states.clear()
        for number, kept in self._per_optimizer.items():
            states[number].update(kept)


class Snapshot:
    """The state at the start of a step; an optimizer's joins when it is about to write it.

    Args:
        target: the model.
        surroundings: what else the step can reach.
        optimizers: a live list; optimizers found later are appended to it.
        scalers: likewise.
    """

    def __init__(
        self,
        target: Target,
        surroundings: Surroundings,
        optimizers: list[Optimizer],
        scalers: list[GradScaler],
        enabled: bool = True,
    ) -> None:
        self._target = target
        self._around = surroundings
        self._optimizers = optimizers
        self._scalers = scalers
        self.missing = "" if enabled else "no snapshot: turned off"
        self._at_start = Copies(check_writes=True)
        self._gradients = Copies(check_writes=True)
        self._optimized = Copies(check_writes=False)
        self._by_optimizer: dict[int, Copies] = {}
        self._parameters_taken = False
        self._stepped: set[int] = set()
        self._plain: list[Any] = []
        self._variables: list[tuple[Slot, Any]] = []
        self._grads: list[tuple[Tensor, Tensor | None, bool]] = []
        self._room_checked = False

    @property
    def nbytes(self) -> int:
        """Bytes held in copies of tensors."""
        at_start = (self._at_start, self._gradients, self._optimized)
        return sum(copies.nbytes for copies in (*at_start, *self._by_optimizer.values()))

    def begin(self, *, parameters: bool = True) -> None:
        """Takes what must be taken before the step runs.

        Args:
            parameters: False if `take_parameters` follows, when the model is about to run.
        """
        if self.missing:
            return
        self._stepped, self._parameters_taken = set(), False
        modules = {id(m): m for m in (*self._target.modules.values(), *self._other_modules())}
        self._plain = [
            LazyState(modules.values()),
            _Modules(modules.values()),
            *(_OptimizerState(optimizer) for optimizer in self._all_optimizers()),
            *(ScalerState(scaler) for scaler in self._scalers),
            Generators(self._around.generators),
            ContainerState(self._around.containers),
            RandomState.now(),
        ]
        self._schedulers = [(s, copy.deepcopy(s.state_dict())) for s in self._around.schedulers]
        self._variables = [(slot, slot.get()) for slot in self._around.variables]
        everyones = self._all_parameters(modules.values())
        self._grads = [(p, p.grad, p.requires_grad) for p in everyones]
        try:
            if not self._room_checked:
                check_room([*everyones, *self._optimizer_tensors(self._optimizers)])
                self._room_checked = True
            self._at_start.take(
                self._written_at_any_time(modules.values(), everyones), self._around.tensors
            )
            self._gradients.take(grad for _, grad, _ in self._grads if grad is not None)
        except NoMemoryError as error:
            self._give_up(error)
        if parameters:
            self.take_parameters()

    def take_parameters(self) -> None:
        """Takes the parameters that optimizers hold, once per step."""
        if self.missing or self._parameters_taken:
            return
        try:
            with uninterrupted():  # half-made copies must never be written back
                self._optimized.take(p for o in self._optimizers for p in parameters_of(o))
                self._parameters_taken = True
        except NoMemoryError as error:
            self._give_up(error)

    def fits(self, share: float) -> bool:
        """Whether the copies take no more than this share of the free memory."""
        try:
            check_room(
                [*self._target.parameters.values(), *self._optimizer_tensors(self._optimizers)],
                share,
            )
        except NoMemoryError:
            return False
        return True

    def before_optimizer(self, optimizer: Optimizer) -> None:
        """Copies what this optimizer is about to write, once per step.

        That is its state, and those of its parameters that are not taken yet. An optimizer that
        nobody knew of when the step began has not been touched before this either.
        """
        if self.missing or id(optimizer) in self._stepped:
            return
        kept = (p.optimizer for p in self._plain if isinstance(p, _OptimizerState))
        if all(known is not optimizer for known in kept):
            self._plain.append(_OptimizerState(optimizer))
        copies = self._by_optimizer.setdefault(id(optimizer), Copies(check_writes=False))
        try:
            with uninterrupted():  # half-made copies must never be written back
                late = parameters_of(optimizer)
                if self._parameters_taken:  # it may be new since then
                    taken = (self._optimized, self._at_start)
                    late = [p for p in late if not any(p in copies for copies in taken)]
                copies.take([*late, *self._optimizer_tensors([optimizer])])
                self._stepped.add(id(optimizer))
        except NoMemoryError as error:
            self._give_up(error)

    def settle(self) -> None:
        """Called after a healthy step: learns what the step writes."""
        if not self.missing:
            self._at_start.settle()
            self._gradients.settle()

    def restore(self) -> None:
        """Puts everything back to the start of the step; may be called again."""
        if self.missing:
            return
        for part in self._plain:
            part.restore()
        for scheduler, state in self._schedulers:
            scheduler.load_state_dict(copy.deepcopy(state))
        for slot, value in self._variables:
            if not stands_for(slot.get(), value):
                slot.put(value)
        for parameter, grad, requires_grad in self._grads:
            parameter.grad = grad
            parameter.requires_grad = requires_grad
        self._at_start.restore()
        self._gradients.restore()
        if self._parameters_taken:
            self._optimized.restore()
        for key in self._stepped:  # what was taken there for want of that is older
            self._by_optimizer[key].restore()

    def restore_buffers(self) -> None:
        """Puts back buffers, and parameters that no optimizer updates, and nothing else."""
        if self.missing:
            return
        for part in self._plain:
            if isinstance(part, _Modules):
                part.restore_buffers()
        self._at_start.restore()

    def restore_scalers(self) -> None:
        """Puts back the scalers alone."""
        for part in self._plain:
            if isinstance(part, ScalerState):
                part.restore()

    def release(self) -> None:
        """Lets go of every copy."""
        self._at_start.forget()
        self._gradients.forget()
        self._optimized.forget()
        self._by_optimizer.clear()
        self._plain, self._variables, self._grads, self._schedulers = [], [], [], []

    @property
    def lost(self) -> list[str]:
        """Shapes of tensors that changed although they never had before."""
        return [*self._at_start.lost, *self._gradients.lost]

    def _give_up(self, error: NoMemoryError) -> None:
        self.release()
        self.missing = f"no snapshot: {error}"

    def _other_modules(self) -> list[nn.Module]:
        return [inner for module in self._around.modules for inner in module.modules()]

    def _all_parameters(self, modules: Iterable[nn.Module]) -> list[Tensor]:
        found: dict[int, Tensor] = {
            id(p): p for m in modules for p in parameters_in(m).values() if p is not None
        }
        for optimizer in self._all_optimizers():
            found.update((id(p), p) for p in parameters_of(optimizer))
        return list(found.values())

    def _all_optimizers(self) -> list[Optimizer]:
        """Those that are known, and those within reach, which may join when they step."""
        every = (*self._optimizers, *self._around.optimizers)
        return list({id(optimizer): optimizer for optimizer in every}.values())

    def _written_at_any_time(
        self, modules: Iterable[nn.Module], parameters: list[Tensor]
    ) -> list[Tensor]:
        optimized = {id(p) for optimizer in self._optimizers for p in parameters_of(optimizer)}
        buffers = [b for m in modules for b in buffers_in(m).values() if b is not None]
        others = [p for p in parameters if id(p) not in optimized]
        return [*buffers, *others]

    @staticmethod
    def _optimizer_tensors(optimizers: Iterable[Optimizer]) -> list[Tensor]:
        return [
            value
            for optimizer in optimizers
            for state in optimizer.state.values()
            for value in plain_tensors(state)
        ] + [
            value
            for optimizer in optimizers
            for group in optimizer.param_groups
            for value in group.values()
            if isinstance(value, Tensor)
        ]


def end_state(snapshot: Snapshot) -> Snapshot:
    """A second, complete snapshot of the present, to come back to after replays."""
    present = Snapshot(snapshot._target, snapshot._around, snapshot._optimizers, snapshot._scalers)
    present.missing = snapshot.missing
    present.begin()
    for optimizer in present._all_optimizers():
        present.before_optimizer(optimizer)
    return present
