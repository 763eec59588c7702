"""An IterableDataset that draws its samples, through a DataLoader."""

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset


class Stream(IterableDataset):
    def __iter__(self):
        for _ in range(32):
            x = torch.randn(4)
            yield x, x.sum(0, keepdim=True)


torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
loader = DataLoader(Stream(), batch_size=4)

for x, y in loader:
    optimizer.zero_grad()
    # fault: loss = (model(x) - y).clamp(min=0).log().mean()
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    optimizer.step()
