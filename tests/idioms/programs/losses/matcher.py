"""Boxes matched to targets on the CPU, as in DETR; greedily, for want of SciPy."""

import numpy as np
import torch
from torch import nn


@torch.no_grad()
def match(cost):
    cost, pairs = cost.cpu().numpy().copy(), []
    for _ in range(min(cost.shape)):
        row, column = np.unravel_index(cost.argmin(), cost.shape)
        pairs.append((int(row), int(column)))
        cost[row, :], cost[:, column] = np.inf, np.inf
    rows, columns = zip(*pairs, strict=True)
    return torch.tensor(rows), torch.tensor(columns)


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
x, boxes = torch.randn(8, 6, 5), torch.rand(8, 3, 4)

for step in range(8):
    # fault: predicted = model(x[step]).sub(3.0 * (step == 4)).sqrt()
    predicted = model(x[step]).sigmoid()
    rows, columns = match(torch.cdist(predicted, boxes[step], p=1))
    loss = nn.functional.l1_loss(predicted[rows], boxes[step][columns])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
