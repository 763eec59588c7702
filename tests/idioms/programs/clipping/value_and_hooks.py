"""Gradients clipped by hooks on every parameter, and by value."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
for parameter in model.parameters():
    parameter.register_hook(lambda gradient: gradient.clamp(-0.5, 0.5))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).mul(step != 4).norm().log()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    nn.utils.clip_grad_value_(model.parameters(), 0.2)
    optimizer.step()
