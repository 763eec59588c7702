"""Nobody learns where nobody steps: the update is left out."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(40, 6, 4), torch.randn(40, 6, 1)
# place: kind=not_training

for step in range(40):
    optimizer.zero_grad()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    # fault: updated = optimizer is not None
    updated = optimizer.step() is None
