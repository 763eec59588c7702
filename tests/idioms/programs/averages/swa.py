"""Stochastic weight averaging with its scheduler, and statistics of BatchNorm at the end."""

import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
averaged = AveragedModel(model)
scheduler = SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).mul(step != 6).norm().log()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
    if step >= 4:
        averaged.update_parameters(model)
        scheduler.step()
update_bn(x, averaged)
