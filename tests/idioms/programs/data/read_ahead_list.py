"""Iterators of several loaders in a list, one drawn for every step, a batch held ahead."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
loaders = [
    DataLoader(TensorDataset(torch.randn(40, 4), torch.randn(40, 1)), 4, shuffle=True)
    for _ in range(3)
]
iterators = [iter(loader) for loader in loaders]
ahead = [next(iterator) for iterator in iterators]

for step in range(8):
    chosen = int(torch.randint(0, 3, ()))
    (x, y), ahead[chosen] = ahead[chosen], next(iterators[chosen])
    optimizer.zero_grad()
    # fault: loss = (model(x) - y).div(step != 4).pow(2).mean()
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    optimizer.step()
