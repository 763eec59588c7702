"""A learning rate that grows over the run, weights put back at its end."""

import copy

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
kept = copy.deepcopy(model.state_dict())
x, y = torch.randn(10, 6, 4), torch.randn(10, 6, 1)
rates, losses = [], []

for step in range(10):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).mul(1e20 ** (step == 6)).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
    rates.append(optimizer.param_groups[0]["lr"])
    losses.append(loss.item())
    for group in optimizer.param_groups:
        group["lr"] *= 1.8
model.load_state_dict(kept)
