"""A scale too high at first: the scaler leaves updates out until it fits."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
x, y = torch.randn(12, 6, 4), torch.randn(12, 6, 1)

for step in range(12):
    optimizer.zero_grad()
    loss = (model(x[step]) - y[step]).pow(2).mean() * 8
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
