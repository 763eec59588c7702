"""Small training loops with poisoned batches, for the guard's promises."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.utils.data import DataLoader

import nanhunt

SIZE, BATCH = 6, 4
COUNT = 60
BAD = (0, 17, 43)  # 5 %


def guarded(model: Any, optimizer: Any, **options: Any) -> Any:
    """A guard that writes no bundle."""
    return nanhunt.guard(model, optimizer, bundle=None, **options)


def net() -> nn.Module:
    """Dropout draws, BatchNorm keeps statistics: what a dropped batch must not leave behind."""
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Linear(SIZE, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1)
    )


def batches(count: int = COUNT, bad: Iterable[int] = (), value: float = float("inf")) -> list[Any]:
    """Batches of inputs; those in `bad` hold a value that is not finite."""
    dice = torch.Generator().manual_seed(1)
    made = [torch.randn(BATCH, SIZE, generator=dice) for _ in range(count)]
    for index in bad:
        made[index][0, 0] = value
    return made


def clean(made: list[Any], bad: Iterable[int]) -> list[Any]:
    """The batches without the bad ones."""
    return [batch for index, batch in enumerate(made) if index not in bad]


def loader(made: list[Any]) -> DataLoader[Any]:
    """A DataLoader that gives these batches."""
    return DataLoader(made, batch_size=None)  # type: ignore[arg-type]


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd with momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw, foreach off": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=False),
    "fused adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
}


def plain_loop(model: nn.Module, optimizer: Any, data: Iterable[Any]) -> None:
    for x in data:
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()


def amp_loop(model: Any, optimizer: Any, scaler: GradScaler, data: Any) -> None:
    for x in data:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = (model(x) - 1).square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()


def everything(model: Any, *owners: Any) -> dict[str, Any]:
    """All bits of a training: tensors by name, and the random state."""
    modules = model if isinstance(model, dict) else {"": model}
    kept: dict[str, Any] = {"random": torch.get_rng_state()}
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            kept[f"{name}.{key}"] = value.detach().clone()
    for number, owner in enumerate(owners):
        kept.update(flat(owner.state_dict(), f"{type(owner).__name__} {number}"))
    return kept


def flat(tree: Any, path: str) -> dict[str, Any]:
    if isinstance(tree, dict):
        return {k: v for key in tree for k, v in flat(tree[key], f"{path}.{key}").items()}
    if isinstance(tree, list | tuple):
        return {k: v for i, item in enumerate(tree) for k, v in flat(item, f"{path}[{i}]").items()}
    return {path: tree.detach().clone() if isinstance(tree, Tensor) else tree}


def different(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names whose bits differ."""
    return sorted(
        name
        for name in first.keys() | second.keys()
        if name not in first or name not in second or not _same(first[name], second[name])
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)
