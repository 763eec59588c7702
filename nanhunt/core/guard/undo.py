"""Undoing a step from inside it, and going back to a good snapshot."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.guard.watch import StepBoundaries
from nanhunt.core.program.target import Target
from nanhunt.core.snapshot.random_state import RandomState
from nanhunt.core.snapshot.reachable import Surroundings
from nanhunt.core.snapshot.snapshot import ScalerState, Snapshot, end_state
from nanhunt.torch_private import versions_kept


class Undo:
    """The snapshot of the step at hand and, for rollback, an older one known to be good.

    A step is undone inside `optimizer.step()`. What a GradScaler knows is needed until the loop
    has called its `update()`; so a scaler is put back only when the next step begins.

    Args:
        target, optimizers, scalers: as in `Snapshot`.
        keeps: whether `roll_back` will be asked for.

    Attributes:
        snapshot: the start of the step.
        lasting: changes that stay when the rest of the step is undone: made again after that.
    """

    def __init__(
        self,
        target: Target,
        optimizers: list[Optimizer],
        scalers: list[GradScaler],
        keeps: bool,
    ) -> None:
        self._target, self._optimizers, self._scalers = target, optimizers, scalers
        parts = (target, Surroundings(None), optimizers, scalers)
        self.snapshot = Snapshot(*parts)
        self._good: Snapshot | None = Snapshot(*parts) if keeps else None
        self._good_groups: list[int] = []
        self._scalers_of: Snapshot | None = None
        self.lasting: list[Callable[[], None]] = []

    @property
    def missing(self) -> str:
        """Why nothing can be undone, or an empty string."""
        kept = self._good.missing if self._good is not None else ""
        return self.snapshot.missing or kept

    @property
    def regrouped(self) -> bool:
        """Whether an optimizer or a group of parameters has come since the good snapshot."""
        return self._good_groups != _sizes(self._optimizers)

    def begin(self) -> None:
        """A step begins."""
        self.lasting = []
        self.snapshot.begin()

    def keep(self) -> None:
        """The present is the good snapshot from now on."""
        if self._good is not None:
            self._good.begin()
            self._good_groups = _sizes(self._optimizers)
            for optimizer in self._optimizers:
                self._good.before_optimizer(optimizer)

    def settle(self) -> None:
        """The step was healthy."""
        self.snapshot.settle()

    def now(self, asked: RandomState) -> str:
        """Puts everything back but the scalers, which wait.

        Args:
            asked: the random state to go back to.

        Returns:
            Shapes of tensors that could not be put back, or an empty string.
        """
        with uninterrupted():
            self.snapshot.settle()  # finds what was written though it never had been before
            with self._scalers_kept(), self._graphs_kept():
                self.snapshot.restore()
            asked.restore()
            self._scalers_of = self._scalers_of or self.snapshot
            for change in self.lasting:
                change()
        return ", ".join(self.snapshot.lost)

    def buffers(self) -> None:
        """Puts back the buffers alone."""
        with uninterrupted():
            self.snapshot.settle()
            with self._graphs_kept():
                self.snapshot.restore_buffers()

    def roll_back(self) -> None:
        """Goes back to the good snapshot; learning rates and random generators go on."""
        good = self._good
        if good is None or self.missing or self.regrouped:  # what is new would be taken away
            return
        with uninterrupted():
            random, groups = RandomState.now(), [_settings(o) for o in self._optimizers]
            with self._scalers_kept(), self._graphs_kept():
                good.restore()
            random.restore()
            for optimizer, settings in zip(self._optimizers, groups, strict=True):
                for group, kept in zip(optimizer.param_groups, settings, strict=True):
                    group.update(kept)
            self.snapshot.begin()  # what the rest of this step does is undone to here
            self._scalers_of = good

    def scalers_now(self) -> None:
        """Puts the scalers back too, if a step was undone."""
        if self._scalers_of is not None:
            with uninterrupted():
                self._scalers_of.restore_scalers()
            self._scalers_of = None

    @contextlib.contextmanager
    def at_start(self, boundaries: StepBoundaries) -> Iterator[None]:
        """Within the block everything is as at the start of the step, then as now again."""
        with uninterrupted():
            self.snapshot.settle()
            present = end_state(self.snapshot)
            try:
                with self._graphs_kept():
                    self.snapshot.restore()
                boundaries.after_batch.restore()
                yield
            finally:
                with self._graphs_kept():
                    present.restore()
                present.release()

    def release(self) -> None:
        """Lets go of everything."""
        self.snapshot.release()
        if self._good is not None:
            self._good.release()
        self._scalers_of = None

    @contextlib.contextmanager
    def _graphs_kept(self) -> Iterator[None]:
        """What is written in the block is no reason for autograd to refuse a later backward.

        The rest of the loop's body goes on with this batch (a generator after its
        discriminator); what comes of it is undone as well.
        """
        tensors = [*self._target.parameters.values(), *(b for _, b in self._target.buffers())]
        counted = tuple(tensor for tensor in tensors if not tensor.is_inference())
        with versions_kept(counted):
            yield

    @contextlib.contextmanager
    def _scalers_kept(self) -> Iterator[None]:
        live = [ScalerState(scaler) for scaler in self._scalers]
        yield
        for state in live:
            state.restore()


def _sizes(optimizers: list[Optimizer]) -> list[int]:
    """Numbers of parameters in all groups of all optimizers."""
    return [len(group["params"]) for o in optimizers for group in o.param_groups]


def _settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The groups' hyperparameters as they are now."""
    return [
        {
            key: value.clone() if isinstance(value, Tensor) else value
            for key, value in group.items()
            if key != "params"
        }
        for group in optimizer.param_groups
    ]
