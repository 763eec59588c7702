"""A guard for a loop whose model and optimizer Accelerate has prepared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from accelerate import Accelerator

import nanhunt
from nanhunt.core.guard.guard import Guard


def guard(accelerator: Accelerator, model: Any, optimizer: Any = None, **options: Any) -> Guard:
    """As `nanhunt.guard`, for what `accelerator.prepare` returned.

    Args:
        accelerator: its scaler is taken.
        model: the prepared model, or a dict or sequence of them.
        optimizer: the prepared optimizer, or several.
        **options: as in `nanhunt.guard`.

    Returns:
        The guard, a context manager. Hand out batches with its `batches(loader)`: Accelerate
        fetches one ahead.

    Raises:
        UsageError: the arguments cannot work.
    """
    several = isinstance(optimizer, Iterable)
    listed = list(optimizer) if several else [optimizer] if optimizer is not None else []
    bare = [getattr(one, "optimizer", one) for one in listed]
    return nanhunt.guard(model, bare, scaler=accelerator.scaler, **options)
