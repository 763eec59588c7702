"""Two thousand operations in a step, one behind the other."""

import torch
from torch import nn


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x):
        for _ in range(1000):
            x = x * 0.999 + self.weight * 1e-4
        # fault: return (x - 9).sqrt()
        return x - 9


torch.manual_seed(0)
model = Chain()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
x = torch.randn(3, 4, 2)

for step in range(3):
    optimizer.zero_grad()
    loss = model(x[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
