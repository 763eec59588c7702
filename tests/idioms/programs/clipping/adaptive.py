"""Adaptive clipping by the norms of the rows of each weight."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).mul(step != 4).pow(2).mean().log()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            bound = p.reshape(len(p), -1).norm(dim=1).clamp(min=1e-3) * 0.05
            norm = p.grad.reshape(len(p), -1).norm(dim=1).clamp(min=1e-6)
            factor = (bound / norm).clamp(max=1.0)
            p.grad.mul_(factor.reshape(-1, *[1] * (p.ndim - 1)))
    optimizer.step()
