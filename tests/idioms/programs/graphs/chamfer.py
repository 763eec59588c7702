"""A decoder of point clouds with the Chamfer distance."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 24))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
codes, clouds = torch.randn(8, 3, 4), torch.randn(8, 3, 10, 3)

for step in range(8):
    made = model(codes[step]).reshape(3, 8, 3)
    # fault: distance = torch.cdist(made, clouds[step]).div(step != 4).pow(2)
    distance = torch.cdist(made, clouds[step]).pow(2)
    loss = distance.amin(1).mean() + distance.amin(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
