"""Deterministic algorithms demanded."""

import torch
from torch import nn

torch.manual_seed(0)
torch.use_deterministic_algorithms(True)
model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 3, 2, 9), torch.randint(0, 4, (8, 3))

for step in range(8):
    optimizer.zero_grad()
    logits = model(x[step])
    # fault: logits = logits.div(step != 4)
    logits = logits.float()
    loss = nn.functional.cross_entropy(logits, y[step])
    loss.backward()
    optimizer.step()
torch.use_deterministic_algorithms(False)
