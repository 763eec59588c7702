"""A warm-up that counts batches while updates come every second batch."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: min(1.0, (n + 1) / 8))
data = [(torch.randn(6, 4), torch.randn(6, 1)) for _ in range(12)]

for step, (x, y) in enumerate(data):
    # fault: loss = (model(x) - y).abs().sub(1e3 * (step == 7)).log().mean()
    loss = (model(x) - y).abs().mean()
    loss.backward()
    if step % 2:
        optimizer.step()
        optimizer.zero_grad()
    scheduler.step()
