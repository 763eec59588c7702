"""A fused optimizer."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).mul(step != 4).abs().mean().log()
    loss = (model(x[step]) - y[step]).abs().mean()
    loss.backward()
    optimizer.step()
