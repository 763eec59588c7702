"""A variational autoencoder with a warm-up of the divergence."""

import torch
import torch.nn.functional as F
from torch import nn


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 4), nn.Linear(2, 8)

    def forward(self, x):
        mean, log_var = self.encoder(x).chunk(2, -1)
        # fault: z = mean + torch.randn_like(mean) * (0.5 * log_var.mul(1e3).abs()).exp()
        z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        return self.decoder(z), mean, log_var


torch.manual_seed(0)
model = VAE()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x = torch.rand(8, 6, 8)

for step in range(8):
    out, mean, log_var = model(x[step])
    divergence = -0.5 * (1 + log_var - mean.pow(2) - log_var.exp()).sum(-1).mean()
    loss = F.binary_cross_entropy_with_logits(out, x[step]) + step / 8 * divergence
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
