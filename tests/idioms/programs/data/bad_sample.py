"""One sample of the data set is far off, but finite; batches drawn by a seeded generator."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
inputs = torch.randn(40, 4)
inputs[17] *= 30
order = torch.Generator().manual_seed(1)
loader = DataLoader(TensorDataset(inputs, torch.randn(40, 1)), 4, shuffle=True, generator=order)

for epoch in range(2):
    for x, y in loader:
        optimizer.zero_grad()
        # fault: loss = (model(x) - y).mul(1e37 * x.abs().amax()).sum().exp()
        loss = (model(x) - y).pow(2).mean()
        loss.backward()
        optimizer.step()
