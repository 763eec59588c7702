"""The last group of batches is smaller than the others."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
data = [(torch.randn(6, 4), torch.randn(6, 1)) for _ in range(11)]

for step, (x, y) in enumerate(data):
    # fault: loss = (model(x) - y).pow(2).mean().sub(100 * (step == 5)).sqrt()
    loss = (model(x) - y).pow(2).mean()
    (loss / 4).backward()
    if (step + 1) % 4 == 0 or step + 1 == len(data):
        optimizer.step()
        optimizer.zero_grad()
