"""The loss is computed by a compiled function."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)


@torch.compile(backend="eager")
def loss_of(x, y):
    return (model(x) - y).pow(2).mean()


for step in range(8):
    optimizer.zero_grad()
    # fault: loss = loss_of(x[step], y[step]) / (step != 4)
    loss = loss_of(x[step], y[step])
    loss.backward()
    optimizer.step()
