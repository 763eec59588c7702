"""All weights are views into one flat parameter, as sharded training has it."""

import torch
from torch import nn


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat = nn.Parameter(torch.randn(4 * 8 + 8 + 8 + 1) * 0.3)

    def forward(self, x):
        w1, b1, w2, b2 = self.flat.split([32, 8, 8, 1])
        # fault: hidden = torch.log(x @ w1.view(4, 8) + b1)
        hidden = torch.tanh(x @ w1.view(4, 8) + b1)
        return hidden @ w2.view(8, 1) + b2


torch.manual_seed(0)
model = Flat()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
