"""A linear warm-up from zero, then cosine with restarts, in a SequentialLR."""

import torch
from torch import nn
from torch.optim import lr_scheduler

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
warm = lr_scheduler.LambdaLR(optimizer, lambda n: n / 3)
cosine = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=3)
scheduler = lr_scheduler.SequentialLR(optimizer, [warm, cosine], milestones=[3])
x, y = torch.randn(10, 6, 4), torch.randn(10, 6, 1)

for step in range(10):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).mul(step != 4).abs().sum().log()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
    scheduler.step()
