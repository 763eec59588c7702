"""Sparse gradients of an embedding with SparseAdam, dense ones beside it."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.ModuleDict({"table": nn.Embedding(20, 4, sparse=True), "head": nn.Linear(4, 1)})
sparse = torch.optim.SparseAdam(model["table"].parameters(), lr=1e-2)
dense = torch.optim.Adam(model["head"].parameters(), lr=1e-2)
x, y = torch.randint(0, 20, (8, 6)), torch.randn(8, 6, 1)

for step in range(8):
    sparse.zero_grad()
    dense.zero_grad()
    # fault: loss = (model["head"](model["table"](x[step])) - y[step]).div(step != 4).abs().mean()
    loss = (model["head"](model["table"](x[step])) - y[step]).pow(2).mean()
    loss.backward()
    sparse.step()
    dense.step()
