"""Half precision by hand with a fixed loss scale; updates that overflow are left out."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)
scale = 128.0

for step in range(8):
    optimizer.zero_grad()
    hidden = (x[step].half() @ model.weight.half().T).float() + model.bias
    # fault: loss = (hidden - y[step]).div(step != 4).pow(2).mean()
    loss = (hidden - y[step]).pow(2).mean()
    (loss * scale).backward()
    for p in model.parameters():
        p.grad.div_(scale)
    if all(p.grad.isfinite().all() for p in model.parameters()):
        optimizer.step()
