"""The training loop that most cases share; what differs is the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def train(
    model: nn.Module,
    loss_of: Callable[[int], Tensor],
    optimizer: torch.optim.Optimizer | None = None,
) -> Callable[[], Any]:
    """A step function: zero the gradients, compute the loss of step n, backward, update."""
    chosen = optimizer or torch.optim.SGD(model.parameters(), lr=0.01)
    counter = {"step": -1}

    def step() -> Tensor:
        counter["step"] += 1
        chosen.zero_grad()
        loss = loss_of(counter["step"])
        loss.backward()
        chosen.step()
        return loss.detach()

    return step


def linear(size: int = 4, out: int = 4) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(size, out)


def inputs(rows: int = 3, size: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def in_module(function, at: int = 0, **layers):
    """A net whose submodule `bad` applies `function` to the output of its linear layer."""

    class Bad(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()
            self.bad = Bad()

        def forward(self, x: Tensor) -> Tensor:
            return self.bad(self.linear(x))

    net = Net()
    x = inputs()
    return net, train(net, lambda n: net(x).sum() if n >= at else net.linear(x).sum())
