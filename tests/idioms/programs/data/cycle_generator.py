"""An endless generator over a loader, held in a variable (diffusion trainers)."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def cycle(loader):
    while True:
        yield from loader


torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
data = cycle(DataLoader(TensorDataset(torch.randn(12, 4), torch.randn(12, 1)), 4, shuffle=True))

for step in range(8):
    optimizer.zero_grad()
    for _ in range(2):
        x, y = next(data)
        # fault: loss = (model(x) - y).mul(step != 4).pow(2).mean().log() / 2
        loss = (model(x) - y).pow(2).mean() / 2
        loss.backward()
    optimizer.step()
