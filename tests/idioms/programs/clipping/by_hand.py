"""The total norm by hand, the factor applied with foreach functions."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).abs().mean()
    loss = (model(x[step]) - y[step]).abs().mean()
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    total = torch.stack(torch._foreach_norm(gradients)).norm()
    torch._foreach_mul_(gradients, min(1.0, 0.5 / (total.item() + 1e-6)))
    optimizer.step()
