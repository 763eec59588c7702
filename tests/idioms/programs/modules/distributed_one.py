"""DistributedDataParallel in a group of one process, accumulating under no_sync."""

import contextlib
import tempfile

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

torch.manual_seed(0)
_place = tempfile.mktemp()
dist.init_process_group("gloo", init_method=f"file://{_place}", rank=0, world_size=1)
model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    with model.no_sync() if step % 2 == 0 else contextlib.nullcontext():
        # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
        loss = (model(x[step]) - y[step]).pow(2).mean()
        loss.backward()
    if step % 2:
        optimizer.step()
        optimizer.zero_grad()
dist.destroy_process_group()
