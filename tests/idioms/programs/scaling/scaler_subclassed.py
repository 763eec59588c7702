"""A GradScaler of one's own, that also clips: as in many image models."""

import torch
from torch import nn


class NativeScaler(torch.amp.GradScaler):
    def __call__(self, loss, optimizer, parameters, clip=None):
        self.scale(loss).backward()
        if clip is not None:
            self.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, clip)
        self.step(optimizer)
        self.update()


torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
loss_scaler = NativeScaler("cpu", init_scale=64.0)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).mul(step != 2).norm().log()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss_scaler(loss, optimizer, model.parameters(), clip=1.0)
