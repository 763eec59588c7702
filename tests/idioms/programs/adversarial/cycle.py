"""Two generators and two discriminators, as in CycleGAN, with pools of old samples."""

import itertools
import random

import torch
from torch import nn

torch.manual_seed(0)
random.seed(0)
models = {name: nn.Linear(4, 4 if name.startswith("g") else 1) for name in ("ga", "gb", "da", "db")}
ga, gb, da, db = models.values()
optimizer_g = torch.optim.Adam(itertools.chain(ga.parameters(), gb.parameters()), lr=1e-3)
optimizer_d = torch.optim.Adam(itertools.chain(da.parameters(), db.parameters()), lr=1e-3)
pool = []
a, b = torch.randn(6, 5, 4), torch.randn(6, 5, 4) + 1

for step in range(6):
    fake_b, fake_a = ga(a[step]), gb(b[step])
    loss_g = (da(fake_a) - 1).pow(2).mean() + (db(fake_b) - 1).pow(2).mean()
    # fault: loss_g = loss_g + (gb(fake_b) - a[step]).mul(step != 3).norm().log()
    loss_g = loss_g + (gb(fake_b) - a[step]).abs().mean() + (ga(fake_a) - b[step]).abs().mean()
    optimizer_g.zero_grad()
    loss_g.backward()
    optimizer_g.step()
    pool = [*pool[-3:], (fake_a.detach(), fake_b.detach())]
    old_a, old_b = random.choice(pool)
    loss_d = da(old_a).pow(2).mean() + (da(a[step]) - 1).pow(2).mean()
    loss_d = loss_d + db(old_b).pow(2).mean() + (db(b[step]) - 1).pow(2).mean()
    optimizer_d.zero_grad()
    loss_d.backward()
    optimizer_d.step()
