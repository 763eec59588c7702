"""MAML: one inner step by functional_call with create_graph, the outer loss through it."""

import torch
from torch import nn
from torch.func import functional_call

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

for step in range(6):
    optimizer.zero_grad()
    loss = 0.0
    for _task in range(2):
        x, shift = torch.rand(6, 1), torch.rand(1)
        weights = dict(model.named_parameters())
        inner = (functional_call(model, weights, (x,)) - (x + shift)).pow(2).mean()
        slopes = torch.autograd.grad(inner, tuple(weights.values()), create_graph=True)
        fast = {k: w - 0.1 * g for (k, w), g in zip(weights.items(), slopes, strict=True)}
        # fault: loss = loss + (functional_call(model, fast, (x,)) / (step != 3)).pow(2).mean()
        loss = loss + (functional_call(model, fast, (x,)) - (x + shift)).pow(2).mean()
    loss.backward()
    optimizer.step()
