"""A validation every few steps inside the loop, the best weights kept."""

import copy

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(9, 6, 4), torch.randn(9, 6, 1)
best, best_weights = float("inf"), None

for step in range(9):
    model.train()
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 5).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
    if step % 3 == 2:
        model.eval()
        with torch.no_grad():
            score = (model(x[0]) - y[0]).pow(2).mean().item()
        if score < best:
            best, best_weights = score, copy.deepcopy(model.state_dict())
