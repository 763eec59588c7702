"""What the tests of stepping step through."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.test_hunt import bits


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.body(x)))


def training(fails_at: int = 99) -> tuple[Net, torch.optim.Optimizer, Callable[[], Any], Any]:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    data = torch.randn(60, 16, 4)
    seen: list[int] = []

    def step_fn() -> torch.Tensor:
        optimizer.zero_grad()
        number = len(seen)
        seen.append(number)
        loss = model(data[number]).pow(2).mean()
        if number == fails_at:
            loss = loss * (loss - loss).log()  # culprit
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step_fn, seen


def bare(steps: int, around: Callable[[], Any] = contextlib.nullcontext) -> list[torch.Tensor]:
    model, optimizer, step_fn, _ = training()
    with around():
        for _ in range(steps):
            step_fn()
    return bits(model, optimizer)
