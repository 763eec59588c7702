"""Two losses with one graph: backward(retain_graph=True), then the second."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 2)

for step in range(8):
    optimizer.zero_grad()
    out = model(x[step])
    first = (out[:, 0] - y[step, :, 0]).pow(2).mean()
    # fault: loss = (out[:, 1] - y[step, :, 1]).mul(step != 4).pow(2).mean().log()
    loss = (out[:, 1] - y[step, :, 1]).pow(2).mean()
    first.backward(retain_graph=True)
    loss.backward()
    optimizer.step()
