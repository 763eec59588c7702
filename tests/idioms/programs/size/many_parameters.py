"""Many small parameters in sixty blocks."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(4, bias=False), nn.Linear(4, 4)

    def forward(self, x):
        return x + 0.1 * self.linear(self.norm(x)).relu()


torch.manual_seed(0)
model = nn.Sequential(*(Block() for _ in range(60)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
x, y = torch.randn(4, 3, 4), torch.randn(4, 3, 4)

for step in range(4):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).mul(step != 2).norm().log()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
