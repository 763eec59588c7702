"""The rate of every group written by hand before each step, groups with and without decay."""

import math

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 1))
decayed = [p for p in model.parameters() if p.ndim > 1]
plain = [p for p in model.parameters() if p.ndim <= 1]
groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))
x, y = torch.randn(10, 6, 4), torch.randn(10, 6, 1)

for step in range(10):
    rate = 1e-2 * min((step + 1) / 3, 0.5 * (1 + math.cos(math.pi * step / 10)))
    for group in optimizer.param_groups:
        group["lr"] = rate
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
