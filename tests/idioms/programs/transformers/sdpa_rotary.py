"""scaled_dot_product_attention with rotary positions and grouped queries."""

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, size=8):
        super().__init__()
        self.q, self.kv, self.out = (
            nn.Linear(size, size),
            nn.Linear(size, size),
            nn.Linear(size, size),
        )
        angles = torch.outer(torch.arange(6.0), 10000 ** -torch.linspace(0, 1, 2))
        self.register_buffer("turn", torch.polar(torch.ones_like(angles), angles), persistent=False)

    def rotate(self, x):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * self.turn[: x.shape[-2]]).flatten(-2)

    def forward(self, x):
        q = self.q(x).unflatten(-1, (2, 4)).transpose(1, 2)
        k, v = self.kv(x).unflatten(-1, (2, 1, 4)).unbind(2)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        y = F.scaled_dot_product_attention(
            self.rotate(q), self.rotate(k), v, is_causal=True, enable_gqa=True
        )
        # fault: return self.out(y.transpose(1, 2).flatten(2)) / (x - x)
        return self.out(y.transpose(1, 2).flatten(2))


torch.manual_seed(0)
model = nn.Sequential(Attention(), nn.RMSNorm(8), nn.Linear(8, 8))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
x = torch.randn(6, 3, 6, 8)

for step in range(6):
    optimizer.zero_grad()
    loss = (model(x[step])[:, :-1] - x[step][:, 1:]).pow(2).mean()
    loss.backward()
    optimizer.step()
