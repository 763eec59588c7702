"""Stochastic gradient Langevin dynamics: noise put into the update."""

import torch
from torch import nn


class SGLD(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    noise = torch.randn_like(p) * (2 * group["lr"]) ** 0.5
                    p.add_(p.grad, alpha=-group["lr"]).add_(noise, alpha=0.1)


torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = SGLD(model.parameters(), lr=0.02)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
