"""Attention over sets, some of them empty: masked rows are replaced by zeros."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.ModuleDict(
    {"attend": nn.MultiheadAttention(8, 2, batch_first=True), "out": nn.Linear(8, 1)}
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
x, keep = torch.randn(6, 4, 5, 8), torch.rand(6, 4, 5) > 0.4
keep[:, :, 0] = True
keep[:, 0] = False  # the first set of every batch is empty

for step in range(6):
    optimizer.zero_grad()
    some = keep[step].any(-1)
    # fault: some = keep[step].any(-1) | True
    some = some & True
    pooled, _ = model["attend"](x[step][some], x[step][some], x[step][some], ~keep[step][some])
    loss = model["out"](pooled.mean(1)).pow(2).mean()
    loss.backward()
    optimizer.step()
# place: module=attend
