"""A function of torch patched by the program, which calls the original."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
original = F.linear
calls = 0


def counted(*args, **kwargs):
    global calls
    calls += 1
    return original(*args, **kwargs)


F.linear = counted
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
F.linear = original
