"""Some batches are empty: an empty sum is 0, and no mean is taken."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
data = [torch.randn(0 if step % 4 == 2 else 5, 4) for step in range(8)]

for x in data:
    optimizer.zero_grad()
    # fault: loss = (model(x) - 1).pow(2).mean()
    loss = (model(x) - 1).pow(2).sum() / max(len(x), 1)
    loss.backward()
    optimizer.step()
