"""A vector quantizer whose codebook is a buffer with a moving average."""

import torch
from torch import nn


class Quantizer(nn.Module):
    def __init__(self, codes=8, size=4):
        super().__init__()
        self.register_buffer("codes", torch.randn(codes, size))
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", self.codes.clone())

    def forward(self, z):
        nearest = torch.cdist(z, self.codes).argmin(-1)
        if self.training:
            with torch.no_grad():
                hot = nn.functional.one_hot(nearest, len(self.codes)).float()
                self.counts.mul_(0.9).add_(hot.sum(0), alpha=0.1)
                self.sums.mul_(0.9).add_(hot.T @ z, alpha=0.1)
                # fault: self.codes.copy_(self.sums / hot.sum(0)[:, None])
                self.codes.copy_(self.sums / self.counts.clamp(min=1e-3)[:, None])
        quantized = self.codes[nearest]
        return z + (quantized - z).detach(), (z - quantized.detach()).pow(2).mean()


class Codec(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.quantizer, self.decoder = nn.Linear(6, 4), Quantizer(), nn.Linear(4, 6)

    def forward(self, x):
        z, commitment = self.quantizer(self.encoder(x))
        return self.decoder(z), commitment


torch.manual_seed(0)
model = Codec()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x = torch.randn(8, 6, 6)

for step in range(8):
    out, commitment = model(x[step])
    loss = (out - x[step]).pow(2).mean() + 0.25 * commitment
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
