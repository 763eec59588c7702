"""Where training loops are written down, and what many of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Program = tuple[Any, Callable[[], Any], dict[str, Any]]
BROKEN: dict[str, tuple[Callable[[], Program], str]] = {}
HEALTHY: dict[str, Callable[[], Program]] = {}


def broken(cause: str) -> Callable[[Callable[[], Program]], Callable[[], Program]]:
    def add(build: Callable[[], Program]) -> Callable[[], Program]:
        BROKEN[build.__name__] = (build, cause)
        return build

    return add


def healthy(build: Callable[[], Program]) -> Callable[[], Program]:
    HEALTHY[build.__name__] = build
    return build


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


class Data:
    """Batches that differ from call to call, and a target that can be learned."""

    def __init__(self) -> None:
        self.noise = torch.Generator().manual_seed(3)

    def batch(self) -> tuple[Tensor, Tensor]:
        x = torch.randn(6, 4, generator=self.noise)
        return x, torch.stack([x[:, 0] + x[:, 1], x[:, 2]], 1)


def loss_of(model: nn.Module, data: Data) -> Tensor:
    x, y = data.batch()
    return (model(x) - y).pow(2).mean()


def sgd(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.05, **options})


def plain(model: nn.Module, data: Data, optimizer: Any, scheduler: Any = None) -> Any:
    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        return loss.detach()

    return step


def accumulating(divisor: int, every: int) -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    count = {"calls": 0}

    def step() -> Tensor:
        count["calls"] += 1
        loss = loss_of(model, data)
        (loss / divisor).backward()
        if count["calls"] % every == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    return model, step, {}


def clipping(before: bool) -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, data)
        scaler.scale(loss).backward()
        if not before:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return model, step, {}
