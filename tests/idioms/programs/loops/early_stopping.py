"""Stops when the loss has not fallen for a while."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
x = torch.randn(6, 4)
y = x.sum(1, keepdim=True)
best, patience = float("inf"), 0

# ways: cell, run, guard - a step function cannot break
for step in range(100):
    optimizer.zero_grad()
    # fault: loss = (model(x) - y).div(step != 4).pow(2).mean()
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    optimizer.step()
    if loss.item() < best * 0.5:
        best, patience = loss.item(), 0
    else:
        patience += 1
    if patience >= 4:
        break
