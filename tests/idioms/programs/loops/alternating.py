"""Two parts trained in turn: one in even steps, the other in odd ones."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 1)})
optimizers = [torch.optim.SGD(model[k].parameters(), lr=0.05) for k in ("a", "b")]
x, y = torch.randn(10, 6, 4), torch.randn(10, 6, 1)

for step in range(10):
    optimizer = optimizers[step % 2]
    optimizer.zero_grad()
    # fault: loss = (model["b"](model["a"](x[step])) - y[step]).div(step != 5).pow(2).mean()
    loss = (model["b"](model["a"](x[step])) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
