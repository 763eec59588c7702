"""A graph network with index_add and a mean over neighbours, some of which have none."""

import torch
from torch import nn


class Convolution(nn.Module):
    def __init__(self, size, out):
        super().__init__()
        self.own, self.others = nn.Linear(size, out), nn.Linear(size, out, bias=False)

    def forward(self, x, edges):
        source, target = edges
        total = torch.zeros_like(x).index_add(0, target, x[source])
        degree = torch.zeros(len(x)).index_add(0, target, torch.ones(len(target)))
        # fault: return self.own(x) + self.others(total / degree[:, None])
        return self.own(x) + self.others(total / degree.clamp(min=1)[:, None])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Convolution(4, 8), Convolution(8, 2)

    def forward(self, x, edges):
        return self.second(self.first(x, edges).relu(), edges)


torch.manual_seed(0)
model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, edges, y = torch.randn(10, 4), torch.randint(0, 9, (2, 20)), torch.randint(0, 2, (10,))

for step in range(6):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x, edges)[:6], y[:6])
    loss.backward()
    optimizer.step()
