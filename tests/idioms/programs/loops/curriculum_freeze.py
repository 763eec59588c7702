"""Parts are frozen and thawed by epoch; frozen ones have no gradient."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
x, y = torch.randn(9, 6, 4), torch.randn(9, 6, 1)
# allows: batch_norm_mode

for step in range(9):
    thawed = step >= 3
    model[0].requires_grad_(thawed)
    model[1].train(thawed)
    optimizer.zero_grad(set_to_none=True)
    # fault: loss = (model(x[step]) - y[step]).div(step != 5).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
