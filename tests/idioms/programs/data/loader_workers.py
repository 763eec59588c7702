"""A DataLoader with a worker process and shuffling."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
loader = DataLoader(TensorDataset(torch.randn(32, 4), torch.randn(32, 1)), 4, True, num_workers=1)

for x, y in loader:
    optimizer.zero_grad()
    # fault: loss = (model(x) - y).clamp(min=0).log().mean()
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    optimizer.step()
