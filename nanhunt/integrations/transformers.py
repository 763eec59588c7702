"""A guard for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

import nanhunt
from nanhunt.core.guard.guard import Guard
from nanhunt.records.guard import GuardReport


class GuardCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Guards the training of a `Trainer`, as `nanhunt.guard` does.

    The Trainer tells its callbacks of no exception. When the guard itself ends the training it is
    removed; after an exception of something else call `close()`, or use the callback as a context
    manager around `train()`.

    Args:
        **options: as in `nanhunt.guard`; the optimizer is the trainer's.

    Example:
        with GuardCallback(policy="skip_batch") as callback:
            trainer = Trainer(..., callbacks=[callback])
            trainer.train()
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.guard: Guard | None = None
        self._inside = False

    def __enter__(self) -> GuardCallback:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.close(error)

    @property
    def report(self) -> GuardReport | None:
        """What the guard has done; None before the training."""
        return self.guard.report if self.guard is not None else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The guard begins."""
        self.close()
        optimizer = kwargs["optimizer"]
        optimizer = getattr(optimizer, "optimizer", optimizer)  # inside that of accelerate
        guard = nanhunt.guard(kwargs["model"], optimizer, **self._options)
        guard.leave_when_stopped()
        self.guard = guard.__enter__()
        self._inside = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The guard ends."""
        self.close()

    def close(self, error: BaseException | None = None) -> None:
        """Removes everything that the guard has attached; may be called again."""
        if self._inside and self.guard is not None:
            self._inside = False
            self.guard.__exit__(type(error) if error is not None else None, error, None)
