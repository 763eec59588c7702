"""A loop that prints, logs and warns."""

import logging
import warnings

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)
log = logging.getLogger("training")

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
    print(f"step {step}: {loss.item():.4f}", flush=True)
    log.info("loss %s", loss.item())
    if loss.item() > 100:
        warnings.warn("the loss is high", stacklevel=1)
