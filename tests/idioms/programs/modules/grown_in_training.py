"""A layer is added in mid-run, and a new optimizer is made for all."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    if step == 4:
        model.insert(1, nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 6).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
