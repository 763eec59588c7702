"""A rate that suits; the fault's is far too high, and the weights run away."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(60, 6, 4), torch.randn(60, 6, 1)

for step in range(60):
    # fault: optimizer.param_groups[0]["lr"] = 50.0
    optimizer.param_groups[0]["lr"] = 0.05
    optimizer.zero_grad()
    out = model(x[step])
    loss = (out - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
# place: cause=exploding_update
