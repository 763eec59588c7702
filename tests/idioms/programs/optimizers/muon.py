"""Muon for the matrices, AdamW for everything else."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
matrices = [p for p in model.parameters() if p.ndim == 2]
others = [p for p in model.parameters() if p.ndim != 2]
optimizers = [torch.optim.Muon(matrices, lr=1e-2), torch.optim.AdamW(others, lr=1e-2)]
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    # fault: loss = (model(x[step]) - y[step]).mul(step != 4).pow(2).mean().log()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
