"""R1 regularization only in every fourth step; the generator in every second."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
models = {"g": nn.Linear(3, 4), "d": nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 1))}
g, d = models["g"], models["d"]
optimizer_g = torch.optim.Adam(g.parameters(), lr=1e-3, betas=(0.0, 0.99))
optimizer_d = torch.optim.Adam(d.parameters(), lr=1e-3, betas=(0.0, 0.99))
real = torch.randn(8, 6, 4)

for step in range(8):
    loss_d = F.softplus(d(g(torch.randn(6, 3)).detach())).mean() + F.softplus(-d(real[step])).mean()
    optimizer_d.zero_grad()
    loss_d.backward()
    if step % 4 == 0:
        seen = real[step].clone().requires_grad_()
        (slope,) = torch.autograd.grad(d(seen).sum(), seen, create_graph=True)
        # fault: penalty = slope.mul(step != 4).pow(2).sum(1).mean().log()
        penalty = slope.pow(2).sum(1).mean()
        (5 * penalty).backward()
    optimizer_d.step()
    if step % 2 == 0:
        loss_g = F.softplus(-d(g(torch.randn(6, 3)))).mean()
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()
