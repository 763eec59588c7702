"""DataParallel without any GPU: the module itself is called."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.DataParallel(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
