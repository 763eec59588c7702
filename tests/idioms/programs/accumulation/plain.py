"""Gradients of four batches added up, a scheduler stepped with the update."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
data = [(torch.randn(6, 4), torch.randn(6, 1)) for _ in range(16)]

optimizer.zero_grad()
for step, (x, y) in enumerate(data):
    # fault: loss = ((model(x) - y) / (step != 6)).abs().mean() / 4
    loss = (model(x) - y).abs().mean() / 4
    loss.backward()
    if step % 4 == 3:
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
