"""One scaler, two losses and two optimizers in a step."""

import torch
from torch import nn

torch.manual_seed(0)
models = {"first": nn.Linear(4, 4), "second": nn.Linear(4, 4)}
first, second = models["first"], models["second"]
optimizers = [torch.optim.Adam(m.parameters(), lr=1e-2) for m in (first, second)]
scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
x = torch.randn(8, 6, 4)

for step in range(8):
    for optimizer in optimizers:
        optimizer.zero_grad()
    a, b = first(x[step]), second(x[step])
    loss_a = (a - b.detach()).pow(2).mean()
    # fault: loss_b = (b - a.detach()).pow(2).mean().mul(step != 5).log()
    loss_b = (b - a.detach()).pow(2).mean()
    scaler.scale(loss_a).backward()
    scaler.scale(loss_b).backward()
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
