"""torch.autograd.backward over several losses with weights."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 2)

for step in range(8):
    optimizer.zero_grad()
    # fault: each = (model(x[step]) - y[step]).div(step != 4).pow(2).mean(0)
    each = (model(x[step]) - y[step]).pow(2).mean(0)
    torch.autograd.backward(list(each.unbind()), [torch.tensor(1.0), torch.tensor(0.5)])
    optimizer.step()
