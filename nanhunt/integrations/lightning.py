"""A guard for Lightning's Trainer."""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError:  # its older name
    from pytorch_lightning import Callback  # type: ignore[assignment]

import nanhunt
from nanhunt.core.guard.guard import Guard
from nanhunt.records.guard import GuardReport


class GuardCallback(Callback):
    """Guards the training of a `Trainer`, as `nanhunt.guard` does.

    Args:
        **options: as in `nanhunt.guard`; optimizers and scaler are the trainer's.

    Example:
        trainer = Trainer(callbacks=[GuardCallback(policy="skip_batch")])
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.guard: Guard | None = None

    @property
    def report(self) -> GuardReport | None:
        """What the guard has done; None before the training."""
        return self.guard.report if self.guard is not None else None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The guard begins."""
        self._leave()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        guard = nanhunt.guard(pl_module, trainer.optimizers, scaler=scaler, **self._options)
        self.guard = guard.__enter__()
        self._inside = True

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning fetches ahead: this is the batch that the step gets."""
        if self.guard is not None:
            self.guard.batch(batch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The guard ends."""
        self._leave()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The guard ends."""
        self._leave(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """The guard ends, if nothing else has ended it."""
        self._leave()

    _inside = False

    def _leave(self, error: BaseException | None = None) -> None:
        if self._inside and self.guard is not None:
            self._inside = False
            self.guard.__exit__(type(error) if error is not None else None, error, None)
