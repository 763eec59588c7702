"""A network makes the weights of another."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 4 * 2 + 2))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
codes, x, y = torch.randn(8, 3), torch.randn(8, 6, 4), torch.randn(8, 6, 2)

for step in range(8):
    weights = model(codes[step])
    # fault: out = F.linear(x[step], weights[:8].view(2, 4).div(step != 4), weights[8:])
    out = F.linear(x[step], weights[:8].view(2, 4), weights[8:])
    loss = (out - y[step]).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
