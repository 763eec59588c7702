"""`nanhunt.guard`: checks its arguments and makes the guard."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.guard.guard import Guard
from nanhunt.core.guard.policies import DEFAULT, POLICIES
from nanhunt.core.hunting.ledger import listed, working_scalers
from nanhunt.core.program.target import Target
from nanhunt.errors import UsageError


def guard(
    model: Any,
    optimizer: Optimizer | Iterable[Optimizer] | None = None,
    *,
    scaler: GradScaler | Iterable[GradScaler] | None = None,
    policy: str = DEFAULT,
    every: int = 1,
    limit: int = 10,
    total: int = 1000,
    keep_every: int = 100,
    bundle: str | Path | None = "nanhunt_bundles",
    max_bundles: int = 1,
) -> Guard:
    """Guards the training loop inside a `with` block: bad steps are undone, counted and kept.

    A step is what the loop does for one `optimizer.step()`, or for one of each optimizer. It is
    bad when a loss, parameter, buffer or optimizer state is not finite at its end; steps that a
    GradScaler leaves out by itself are not. Healthy steps are not changed in any bit.

    Args:
        model: a module, or a dict or sequence of modules (generator and discriminator).
        optimizer, scaler: one or several; others show up when they are used.
        policy: what to do with a bad step.
            `"stop"`: undo it and end the loop with `GuardStoppedError`.
            `"skip_batch"`: parameters, optimizer, scaler, buffers and random generators are put
            back as before the batch, and the loop goes on. A learning rate schedule counts it,
            unless the loop asks `undone`.
            `"restore_buffers"`: buffers alone are put back, for loops that leave out bad
            batches themselves; anything else that is bad stops the loop.
            `"rollback"`: parameters, optimizer, scaler and buffers are put back to the last
            good snapshot, the data and the learning rate schedule go on.
        every: check after so many steps; what is undone is then all of them.
        limit: stop at so many bad steps in a row.
        total: stop at so many bad steps altogether.
        keep_every: where good snapshots are kept, steps between them.
        bundle: folder for what is needed to hunt a bad step later (`hunt_bundle`): parameters,
            buffers, optimizer and scaler state, batch, random state. None for no bundle.
            With `every` above 1 none is written: which of the steps went bad is not known.
        max_bundles: how many of them to write at most.

    Returns:
        The guard, a context manager; its `report` says what it did.

    Raises:
        UsageError: the arguments cannot work.
        PoisonedStateError: on entering, parameters, buffers or optimizer state are bad already.
        HuntBusyError: on entering, while another guard or hunt is active.

    Example:
        >>> import torch, nanhunt
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with nanhunt.guard(model, optimizer, policy="skip_batch", bundle=None) as guard:
        ...     for scale in (1.0, float("inf"), 1.0):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(1, 2) * scale).sum().backward()
        ...         optimizer.step()
        >>> guard.report.counts
        {'skipped': 1}
    """
    if policy not in POLICIES:
        raise UsageError(f"policy is {policy!r}; known are {', '.join(map(repr, POLICIES))}")
    numbers = {"every": every, "limit": limit, "total": total, "keep_every": keep_every}
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise UsageError(f"{name} must be a whole number of at least 1, not {number!r}")
    parts = Target(model), listed(optimizer, Optimizer, "optimizer")
    folder = Path(bundle) if bundle is not None and every == 1 else None
    how = POLICIES[policy]
    return Guard(*parts, working_scalers(scaler), how, numbers, folder, max_bundles)
