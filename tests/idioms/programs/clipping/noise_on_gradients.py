"""Noise added to the gradients, falling with the steps."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    for p in model.parameters():
        # fault: p.grad += torch.randn_like(p.grad) * 0.1 / (step != 4 and 1 or torch.zeros(()))
        p.grad += torch.randn_like(p.grad) * 0.1 / (1 + step)
    optimizer.step()
