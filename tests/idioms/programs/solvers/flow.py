"""A coupling flow with its log determinant, trained by likelihood."""

import math

import torch
from torch import nn


class Coupling(nn.Module):
    def __init__(self, flip):
        super().__init__()
        self.net, self.flip = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 2)), flip

    def forward(self, x, log_det):
        a, b = x.flip(-1).chunk(2, -1) if self.flip else x.chunk(2, -1)
        scale, shift = self.net(a).chunk(2, -1)
        # fault: b = b * scale.mul(200).abs().exp() + shift
        b = b * scale.tanh().exp() + shift
        return torch.cat([a, b], -1), log_det + scale.tanh().sum(-1)


torch.manual_seed(0)
model = nn.ModuleList([Coupling(flip) for flip in (False, True, False)])
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x = torch.randn(8, 10, 2) * 2 + 1

for step in range(8):
    z, log_det = x[step], torch.zeros(10)
    for layer in model:
        z, log_det = layer(z, log_det)
    loss = (0.5 * z.pow(2).sum(-1) + math.log(2 * math.pi) - log_det).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
