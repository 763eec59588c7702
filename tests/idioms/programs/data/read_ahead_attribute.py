"""A prefetcher that reads one batch ahead, its iterator in an attribute."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Prefetcher:
    def __init__(self, loader):
        self.loader = loader
        self.source = iter(loader)
        self.load()

    def load(self):
        self.following = next(self.source, None)
        if self.following is None:
            self.source = iter(self.loader)
            self.following = next(self.source)

    def next(self):
        batch = self.following
        self.load()
        return batch


torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
data = TensorDataset(torch.randn(20, 4), torch.randn(20, 1))
prefetcher = Prefetcher(DataLoader(data, 4, shuffle=True))

for step in range(8):
    x, y = prefetcher.next()
    optimizer.zero_grad()
    # fault: loss = (model(x) - y).div(step != 4).pow(2).mean()
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    optimizer.step()
