"""Rates that fall layer by layer, with an exponential schedule and momentum changed too."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
groups = [{"params": m.parameters(), "lr": 0.1 * 0.5 ** (4 - i)} for i, m in enumerate(model)]
optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.5)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
    scheduler.step()
    for group in optimizer.param_groups:
        group["momentum"] = min(0.95, group["momentum"] + 0.05)
