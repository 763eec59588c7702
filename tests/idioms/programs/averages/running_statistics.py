"""Inputs normalized by running statistics that the program keeps itself, outside any module."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4) * 5 + 2, torch.randn(8, 6, 1)
mean, variance, count = torch.zeros(4), torch.ones(4), 1e-4

for step in range(8):
    batch_mean, batch_variance = x[step].mean(0), x[step].var(0)
    delta, total = batch_mean - mean, count + 6
    mean = mean + delta * 6 / total
    variance = (variance * count + batch_variance * 6 + delta.pow(2) * count * 6 / total) / total
    count = total
    # fault: normal = (x[step] - mean) / variance.mul(step != 4).sqrt()
    normal = (x[step] - mean) / (variance + 1e-8).sqrt()
    optimizer.zero_grad()
    loss = (model(normal) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
