"""A Hessian-vector product by two backward passes (influence, second-order methods)."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(6, 5, 3), torch.randn(6, 5, 1)

for step in range(6):
    optimizer.zero_grad()
    # fault: inner = (model(x[step]) - y[step]).mul(step != 3).norm()
    inner = (model(x[step]) - y[step]).pow(2).mean()
    slopes = torch.autograd.grad(inner, list(model.parameters()), create_graph=True)
    loss = inner + 0.1 * sum(g.pow(2).sum() for g in slopes)
    loss.backward()
    optimizer.step()
