"""A GRUCell over 150 time steps."""

import torch
from torch import nn


class Long(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 6), nn.Linear(6, 1)

    def forward(self, x):
        hidden = x.new_zeros(x.shape[0], 6)
        for t in range(x.shape[1]):
            hidden = self.cell(x[:, t], hidden)
        # fault: return self.head(hidden).sub(9).sqrt()
        return self.head(hidden)


torch.manual_seed(0)
model = Long()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(4, 3, 150, 3), torch.randn(4, 3, 1)

for step in range(4):
    optimizer.zero_grad()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
