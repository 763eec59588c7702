"""ReduceLROnPlateau on the loss."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
x, y = torch.randn(10, 6, 4), torch.randn(10, 6, 1)

for step in range(10):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).mul(step != 4).abs().sum().log()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
    scheduler.step(loss)
