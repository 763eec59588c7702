"""Random numbers forked for an evaluation, and seeded anew in every step."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    with torch.random.fork_rng():
        torch.manual_seed(step)
        noise = torch.randn(6, 4)
    optimizer.zero_grad()
    # fault: loss = (model(x[step] + noise) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step] + noise) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
