"""An iterator over a DataLoader, asked for the next batch and made anew at its end."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
loader = DataLoader(TensorDataset(torch.randn(12, 4), torch.randn(12, 1)), 4, shuffle=True)
batches = iter(loader)

for step in range(8):
    try:
        x, y = next(batches)
    except StopIteration:
        batches = iter(loader)
        x, y = next(batches)
    optimizer.zero_grad()
    # fault: loss = (model(x) - y).mul(step != 4).pow(2).mean().log()
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    optimizer.step()
