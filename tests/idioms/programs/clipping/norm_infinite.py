"""clip_grad_norm_ with an infinite bound, only to log the norm."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)
norms = []

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).mul(step != 4).norm().log()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    norms.append(nn.utils.clip_grad_norm_(model.parameters(), float("inf")).item())
    optimizer.step()
