"""Mixup with coefficients from a Beta distribution of NumPy."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
np.random.seed(0)
model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.randn(8, 6, 4), torch.randint(0, 3, (8, 6))

for step in range(8):
    share = np.random.beta(0.4, 0.4)
    order = torch.randperm(6)
    logits = model(share * x[step] + (1 - share) * x[step][order])
    # fault: logits = logits.div(step != 4)
    logits = logits.float()
    loss = share * F.cross_entropy(logits, y[step])
    loss = loss + (1 - share) * F.cross_entropy(logits, y[step][order])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
