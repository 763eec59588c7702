"""A codebook that is a parameter, written through .data during forward."""

import torch
from torch import nn


class Codec(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(4, 6)
        self.codes = nn.Parameter(torch.randn(8, 4))

    def forward(self, x):
        z = self.encoder(x)
        nearest = torch.cdist(z, self.codes).argmin(-1)
        if self.training:
            for code in nearest.unique():
                mean = z[nearest == code].mean(0).detach()
                # fault: self.codes.data[code] = self.codes.data[code] / (mean - mean)
                self.codes.data[code] = 0.9 * self.codes.data[code] + 0.1 * mean
        quantized = self.codes[nearest]
        commitment = (z - quantized.detach()).pow(2).mean() + (z.detach() - quantized).pow(2).mean()
        return self.decoder(z + (quantized - z).detach()), commitment


torch.manual_seed(0)
model = Codec()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x = torch.randn(8, 6, 6)

for step in range(8):
    out, commitment = model(x[step])
    loss = (out - x[step]).pow(2).mean() + commitment
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
