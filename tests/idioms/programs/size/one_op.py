"""A step of one operation on one parameter."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.ParameterList([torch.randn(())])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = model[0] / (step != 4)
    loss = model[0] ** 2
    loss.backward()
    optimizer.step()
