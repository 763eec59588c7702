"""Denoising at random times with a schedule in buffers."""

import torch
from torch import nn


class Denoiser(nn.Module):
    def __init__(self, times=20):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 16), nn.SiLU(), nn.Linear(16, 4))
        self.register_buffer("kept", (1 - torch.linspace(1e-4, 0.2, times)).cumprod(0))

    def forward(self, x, t):
        return self.net(torch.cat([x, t[:, None] / 20], -1))


torch.manual_seed(0)
model = Denoiser()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
data = torch.randn(8, 6, 4)

for step in range(8):
    t = torch.randint(0, 20, (6,))
    noise, kept = torch.randn(6, 4), model.kept[t, None]
    noisy = kept.sqrt() * data[step] + (1 - kept).sqrt() * noise
    # fault: loss = ((model(noisy, t) - noise).pow(2) / (1 - kept.clamp(min=1.0))).mean()
    loss = ((model(noisy, t) - noise).pow(2) * (kept / (1 - kept)).clamp(max=5.0)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
