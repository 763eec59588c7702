"""Gradients of four batches added up before a scaled update."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
data = [(torch.randn(6, 4), torch.randn(6, 1)) for _ in range(16)]
accumulate = 4

for step, (x, y) in enumerate(data):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # fault: loss = (model(x) - y).div(step != 9).pow(2).mean() / accumulate
        loss = (model(x) - y).pow(2).mean() / accumulate
    scaler.scale(loss).backward()
    if (step + 1) % accumulate == 0:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
