"""Complex weights and inputs, a real loss."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 2, dtype=torch.complex64)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(8, 6, 4, dtype=torch.complex64), torch.randn(8, 6, 2)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) * (step != 4)).abs().log().sub(y[step]).pow(2).mean()
    loss = (model(x[step]).abs() - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
