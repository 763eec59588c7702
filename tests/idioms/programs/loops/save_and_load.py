"""A checkpoint is written in mid-run, and weights and optimizer are read back later."""

import io

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(9, 6, 4), torch.randn(9, 6, 1)
file = io.BytesIO()

for step in range(9):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 7).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
    if step == 3:
        file.seek(0)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    if step == 5:
        file.seek(0)
        state = torch.load(file)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
