"""checkpoint_sequential under autocast, with random state preserved."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint_sequential

torch.manual_seed(0)
layers = [nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.2), nn.GELU()) for _ in range(4)]
model = nn.Sequential(*layers, nn.Linear(6, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(6, 5, 6), torch.randn(6, 5, 1)

for step in range(6):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = checkpoint_sequential(model[:4], 2, x[step], use_reentrant=False)
        # fault: loss = (model[4](hidden) - y[step]).div(step != 3).pow(2).mean()
        loss = (model[4](hidden) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
