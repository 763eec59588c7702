"""Triplets mined inside the batch; batches without any give a loss of zero."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(6, 4)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(8, 8, 6), torch.arange(8) % 3

for step in range(8):
    z = model(x[step])
    # fault: distance = (z[:, None] - z[None]).pow(2).sum(-1).sqrt()
    distance = torch.cdist(z, z)
    same = y[:, None] == y[None]
    hardest = (distance * same).max(1).values
    nearest = distance.masked_fill(same, float("inf")).min(1).values
    loss = (hardest - nearest + 1).relu().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
