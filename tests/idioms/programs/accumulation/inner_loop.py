"""Micro-batches in an inner loop of every step."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.randn(8, 12, 4), torch.randn(8, 12, 1)

for step in range(8):
    optimizer.zero_grad()
    total = 0.0
    for a, b in zip(x[step].chunk(3), y[step].chunk(3), strict=True):
        # fault: loss = (model(a) - b).mul(step != 3).pow(2).mean().log() / 3
        loss = (model(a) - b).pow(2).mean() / 3
        loss.backward()
        total += loss.item()
    optimizer.step()
