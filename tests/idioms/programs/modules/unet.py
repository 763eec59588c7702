"""A U-Net: skip connections, transposed convolutions, group norms, channels last."""

import torch
from torch import nn


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.norm, self.up = nn.GroupNorm(2, 8), nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.out = nn.Conv2d(5, 1, 1)

    def forward(self, x):
        hidden = self.norm(self.down(x)).relu()
        # fault: hidden = hidden / hidden
        hidden = hidden * hidden
        return self.out(torch.cat([self.up(hidden), x], 1))


torch.manual_seed(0)
model = UNet().to(memory_format=torch.channels_last)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x = torch.randn(6, 2, 1, 8, 8)

for step in range(6):
    optimizer.zero_grad()
    loss = (model(x[step].contiguous(memory_format=torch.channels_last)) - x[step]).abs().mean()
    loss.backward()
    optimizer.step()
