"""A penalty on the Jacobian by jacrev inside the loss."""

import torch
from torch import nn
from torch.func import jacrev, vmap

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x = torch.randn(6, 5, 3)

for step in range(6):
    optimizer.zero_grad()
    slopes = vmap(jacrev(model))(x[step])
    # fault: loss = model(x[step]).pow(2).mean() + slopes.mul(step != 3).pow(2).sum().log()
    loss = model(x[step]).pow(2).mean() + 0.1 * slopes.pow(2).sum()
    loss.backward()
    optimizer.step()
