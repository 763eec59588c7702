"""A BatchNorm whose statistics the fault poisons in a forward pass without gradients."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)
# place: module=1
# place: phase=data

for step in range(8):
    with torch.no_grad():
        # fault: warm = model(x[step] * (1e38 if step == 4 else 1.0))
        warm = model(x[step])
    optimizer.zero_grad()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
