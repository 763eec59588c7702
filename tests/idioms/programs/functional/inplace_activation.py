"""In-place activations and views written in place."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 2)

for step in range(8):
    optimizer.zero_grad()
    out = model(x[step])
    # fault: out[:, 0].div_(step != 4)
    out[:, 0].mul_(0.5)
    loss = (out - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
