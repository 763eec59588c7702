"""FLOPs counted by a dispatch mode around every step."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)
flops = 0

for step in range(8):
    optimizer.zero_grad()
    with FlopCounterMode(display=False) as counter:
        # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
        loss = (model(x[step]) - y[step]).pow(2).mean()
        loss.backward()
    optimizer.step()
    flops += counter.get_total_flops()
