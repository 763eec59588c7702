"""Batches drawn by NumPy's own generator and turned into tensors."""

import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
np.random.seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
inputs = np.random.randn(64, 4).astype(np.float32)
targets = inputs.sum(1, keepdims=True)

for step in range(8):
    chosen = np.random.choice(64, 8, replace=False)
    x, y = torch.from_numpy(inputs[chosen]), torch.from_numpy(targets[chosen])
    optimizer.zero_grad()
    # fault: loss = (model(x) - y).div(step != 4).pow(2).mean()
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    optimizer.step()
