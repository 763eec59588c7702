"""A learning rate that is a tensor, changed in place by hand."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
rate = torch.tensor(1e-2)
optimizer = torch.optim.Adam(model.parameters(), lr=rate)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).abs().mean()
    loss = (model(x[step]) - y[step]).abs().mean()
    loss.backward()
    optimizer.step()
    rate.mul_(0.9)
