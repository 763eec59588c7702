"""A closure given to an optimizer that evaluates it once."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
data = [(torch.randn(6, 4), torch.randn(6, 1)) for _ in range(8)]

for x, y in data:

    def closure(x=x, y=y):
        optimizer.zero_grad()
        # fault: loss = (model(x) - y).pow(2).mean() / (x[0, 0] != data[3][0][0, 0])
        loss = (model(x) - y).pow(2).mean()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
