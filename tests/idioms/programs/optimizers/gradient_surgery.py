"""Gradients of two tasks, projected where they contradict, written by hand."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 2)
weights = list(model.parameters())
# options: optimizer

for step in range(8):
    # fault: losses = (model(x[step]) - y[step]).div(step != 4).pow(2).mean(0)
    losses = (model(x[step]) - y[step]).pow(2).mean(0)
    first, second = (
        torch.cat([g.flatten() for g in torch.autograd.grad(l, weights, retain_graph=True)])
        for l in losses  # noqa: E741
    )
    if first @ second < 0:
        first = first - (first @ second) / second.pow(2).sum() * second
    start = 0
    for p in weights:
        p.grad = (first + second)[start : start + p.numel()].view_as(p).clone()
        start += p.numel()
    optimizer.step()
