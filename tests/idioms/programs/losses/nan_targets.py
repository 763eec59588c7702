"""Targets that are missing are NaN and masked out."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 3)
y[torch.rand(8, 6, 3) < 0.3] = float("nan")

# place: phase=data

for step in range(8):
    known = ~y[step].isnan()
    # fault: loss = ((model(x[step]) - y[step]) * known).pow(2).mean()
    loss = (model(x[step]) - y[step])[known].pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
