"""Spectral and orthogonal parametrizations."""

import torch
from torch import nn
from torch.nn.utils import parametrizations

torch.manual_seed(0)
model = nn.Sequential(
    parametrizations.spectral_norm(nn.Linear(4, 8)),
    nn.ReLU(),
    parametrizations.orthogonal(nn.Linear(8, 8)),
    parametrizations.weight_norm(nn.Linear(8, 1)),
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).mul(step != 4).norm().log()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
