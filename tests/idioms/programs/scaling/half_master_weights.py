"""Weights in bfloat16, the optimizer on a float32 copy."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1).bfloat16()
masters = [p.detach().float().requires_grad_() for p in model.parameters()]
optimizer = torch.optim.SGD(masters, lr=0.05)
x, y = torch.randn(8, 6, 4).bfloat16(), torch.randn(8, 6, 1).bfloat16()

for step in range(8):
    model.zero_grad()
    # fault: loss = ((model(x[step]) - y[step]).float() / (step != 4)).pow(2).mean()
    loss = (model(x[step]) - y[step]).float().pow(2).mean()
    loss.backward()
    for master, parameter in zip(masters, model.parameters(), strict=True):
        master.grad = parameter.grad.float()
    optimizer.step()
    with torch.no_grad():
        for master, parameter in zip(masters, model.parameters(), strict=True):
            parameter.copy_(master)
