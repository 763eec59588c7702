"""A physics-informed network: derivatives with respect to the inputs in the loss."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

for step in range(8):
    t = torch.rand(10, 1).requires_grad_()
    u = model(t)
    (first,) = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)
    (second,) = torch.autograd.grad(first, t, torch.ones_like(first), create_graph=True)
    # fault: residual = second + u.div(step != 4)
    residual = second + u
    loss = residual.pow(2).mean() + (model(torch.zeros(1, 1)) - 1).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
