"""A hundred and fifty steps of a tiny model, each as healthy as the last."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(150, 4, 2), torch.randn(150, 4, 1)

for step in range(150):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 120).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
