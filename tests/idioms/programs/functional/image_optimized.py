"""An image is optimized through a frozen network (style transfer, adversarial examples)."""

import torch
from torch import nn

torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).requires_grad_(False).eval()
model = nn.ParameterList([torch.rand(1, 3, 8, 8)])
target = network(torch.rand(1, 3, 8, 8))
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (network(model[0]) - target).div(step != 4).pow(2).mean()
    loss = (network(model[0]) - target).pow(2).mean()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        model[0].clamp_(0, 1)
