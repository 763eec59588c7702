"""Weights clipped to a box after every update, as in the first WGAN."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-2)
x = torch.randn(8, 6, 4)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = -model(x[step]).div(step != 4).mean()
    loss = -model(x[step]).mean()
    loss.backward()
    optimizer.step()
    for p in model.parameters():
        p.data.clamp_(-0.05, 0.05)
