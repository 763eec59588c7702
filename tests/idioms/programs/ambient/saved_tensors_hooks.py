"""Saved tensors packed by hooks, into bfloat16 and back."""

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    with saved_tensors_hooks(lambda t: t.bfloat16(), lambda t: t.float()):
        # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
        loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
