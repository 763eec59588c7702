"""A buffer made by expand, whose elements share memory."""

import torch
from torch import nn


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("ids", torch.arange(4.0).expand(3, -1))
        self.register_buffer("one", torch.ones(1).expand(4))

    def forward(self, x):
        # fault: return self.linear(x) + (self.ids - 9 * self.one).sqrt().sum(0)
        return self.linear(x) + (self.ids * self.one).sum(0)


torch.manual_seed(0)
model = Positions()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
x = torch.randn(8, 6, 4)

for step in range(8):
    optimizer.zero_grad()
    loss = model(x[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
