"""A foreach optimizer, with amsgrad and maximize off."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, foreach=True, amsgrad=True)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).exp().mul(1e38 ** (step == 4)).mul(1e38).mean()
    loss = (model(x[step]) - y[step]).abs().mean()
    loss.backward()
    optimizer.step()
