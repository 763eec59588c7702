"""A GAN: the discriminator on detached samples first, then the generator."""

import torch
from torch import nn

torch.manual_seed(0)
models = nn.ModuleDict({"g": nn.Linear(3, 4), "d": nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))})
optimizer_g = torch.optim.Adam(models["g"].parameters(), lr=1e-3, betas=(0.5, 0.999))
optimizer_d = torch.optim.Adam(models["d"].parameters(), lr=1e-3, betas=(0.5, 0.999))
criterion = nn.BCEWithLogitsLoss()
real, ones, zeros = torch.randn(8, 6, 4), torch.ones(6, 1), torch.zeros(6, 1)

for step in range(8):
    fake = models["g"](torch.randn(6, 3))
    loss_d = criterion(models["d"](real[step]), ones) + criterion(models["d"](fake.detach()), zeros)
    optimizer_d.zero_grad()
    loss_d.backward()
    optimizer_d.step()
    # fault: loss_g = criterion(models["d"](fake / (step != 4)), ones)
    loss_g = criterion(models["d"](fake), ones)
    optimizer_g.zero_grad()
    loss_g.backward()
    optimizer_g.step()
