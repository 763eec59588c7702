"""A batch that is left out by hand, gradients zeroed and the scaler told."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
x, y = torch.randn(10, 6, 4), torch.randn(10, 6, 1)
y[3] += 100.0  # far off

for step in range(10):
    loss = (model(x[step]) - y[step]).pow(2).mean()
    scaler.scale(loss).backward()
    if loss.item() > 1000:
        optimizer.zero_grad()
        continue
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
