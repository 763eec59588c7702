"""WGAN with a gradient penalty: a gradient of a gradient."""

import torch
from torch import nn

torch.manual_seed(0)
models = {"g": nn.Linear(3, 4), "d": nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))}
generator, critic = models["g"], models["d"]
optimizer_g = torch.optim.RMSprop(generator.parameters(), lr=1e-3)
optimizer_d = torch.optim.RMSprop(critic.parameters(), lr=1e-3)
real = torch.randn(8, 6, 4)

for step in range(8):
    fake = generator(torch.randn(6, 3))
    mix = torch.rand(6, 1)
    between = (mix * real[step] + (1 - mix) * fake.detach()).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    # fault: penalty = (slope.mul(step != 4).norm(2, dim=1).log() - 1).pow(2).mean()
    penalty = (slope.norm(2, dim=1) - 1).pow(2).mean()
    loss_d = critic(fake.detach()).mean() - critic(real[step]).mean() + 10 * penalty
    optimizer_d.zero_grad()
    loss_d.backward()
    optimizer_d.step()
    loss_g = -critic(fake).mean()
    optimizer_g.zero_grad()
    loss_g.backward()
    optimizer_g.step()
