"""A frozen part is thawed in mid-run and joins the optimizer."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, 1)})
model["body"].requires_grad_(False)
optimizer = torch.optim.Adam(model["head"].parameters(), lr=1e-2)
x, y = torch.randn(10, 6, 4), torch.randn(10, 6, 1)

for step in range(10):
    if step == 5:
        model["body"].requires_grad_(True)
        optimizer.add_param_group({"params": list(model["body"].parameters()), "lr": 1e-3})
    optimizer.zero_grad()
    # fault: loss = (model["head"](model["body"](x[step])) - y[step]).div(step != 7).abs().mean()
    loss = (model["head"](model["body"](x[step])) - y[step]).abs().mean()
    loss.backward()
    optimizer.step()
