"""BatchNorm layers are frozen in eval mode while the rest is trained."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
for layer in model.modules():
    if isinstance(layer, nn.BatchNorm1d):
        layer.eval().requires_grad_(False)
optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)
# allows: batch_norm_mode

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).mul(step != 4).norm().log()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
