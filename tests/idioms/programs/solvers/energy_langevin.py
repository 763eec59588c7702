"""An energy-based model: samples by Langevin steps with gradients of their own."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
data = torch.randn(6, 8, 2)

for step in range(6):
    made = torch.randn(8, 2)
    model.requires_grad_(False)
    for _ in range(5):
        made = made.detach().requires_grad_()
        (slope,) = torch.autograd.grad(model(made).sum(), made)
        made = made - 0.1 * slope + 0.05 * torch.randn(8, 2)
    model.requires_grad_(True)
    real, fake = model(data[step]), model(made.detach())
    # fault: loss = real.mean() - fake.mean() + (real.mul(step != 3).norm().log())
    loss = real.mean() - fake.mean() + 0.1 * (real.pow(2) + fake.pow(2)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
