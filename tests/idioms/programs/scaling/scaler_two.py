"""Two scalers of two optimizers in one step, as in adversarial training."""

import torch
from torch import nn

torch.manual_seed(0)
models = {"generator": nn.Linear(3, 4), "critic": nn.Linear(4, 1)}
generator, critic = models["generator"], models["critic"]
optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-3)
optimizer_d = torch.optim.Adam(critic.parameters(), lr=1e-3)
scaler_g, scaler_d = (torch.amp.GradScaler("cpu", init_scale=512.0) for _ in range(2))
real, noise = torch.randn(8, 6, 4), torch.randn(8, 6, 3)

for step in range(8):
    optimizer_d.zero_grad()
    fake = generator(noise[step])
    loss_d = nn.functional.softplus(-critic(real[step])).mean()
    loss_d = loss_d + nn.functional.softplus(critic(fake.detach())).mean()
    scaler_d.scale(loss_d).backward()
    scaler_d.step(optimizer_d)
    scaler_d.update()
    optimizer_g.zero_grad()
    # fault: loss_g = nn.functional.softplus(-critic(fake)).mean().mul(step != 4).log()
    loss_g = nn.functional.softplus(-critic(fake)).mean()
    scaler_g.scale(loss_g).backward()
    scaler_g.step(optimizer_g)
    scaler_g.update()
