"""Segmentation: a soft Dice loss beside binary cross-entropy."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1)
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(6, 2, 1, 8, 8), (torch.rand(6, 2, 1, 8, 8) > 0.7).float()

for step in range(6):
    logits = model(x[step])
    p = logits.sigmoid()
    # fault: dice = 2 * (p * y[step]).sum() / (p + y[step]).mul(step != 3).sum()
    dice = (2 * (p * y[step]).sum() + 1) / (p.sum() + y[step].sum() + 1)
    loss = F.binary_cross_entropy_with_logits(logits, y[step]) + 1 - dice
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
