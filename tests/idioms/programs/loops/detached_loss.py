"""A loss from detached values teaches nothing; the fault detaches one of two terms' inputs."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(30, 6, 4), torch.randn(30, 6, 1)
# place: kind=not_training

for step in range(30):
    optimizer.zero_grad()
    # fault: out = model(x[step]).detach().requires_grad_()
    out = model(x[step])
    loss = (out - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
