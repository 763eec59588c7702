"""Lookahead around another optimizer, as a wrapper that is no Optimizer."""

import torch
from torch import nn


class Lookahead:
    def __init__(self, inner, k=3, alpha=0.5):
        self.inner, self.k, self.alpha, self.count = inner, k, alpha, 0
        self.slow = [[p.detach().clone() for p in g["params"]] for g in inner.param_groups]

    def zero_grad(self):
        self.inner.zero_grad()

    @torch.no_grad()
    def step(self):
        self.inner.step()
        self.count += 1
        if self.count % self.k == 0:
            for group, slow in zip(self.inner.param_groups, self.slow, strict=True):
                for p, s in zip(group["params"], slow, strict=True):
                    p.copy_(s.lerp_(p, self.alpha))


torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = Lookahead(torch.optim.Adam(model.parameters(), lr=1e-2))
x, y = torch.randn(9, 6, 4), torch.randn(9, 6, 1)

for step in range(9):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
