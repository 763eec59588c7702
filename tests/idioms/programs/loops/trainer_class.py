"""A trainer of one's own with callbacks, that holds everything."""

import torch
from torch import nn


class Trainer:
    def __init__(self, model, lr):
        self.model, self.steps, self.log = model, 0, []
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        self.callbacks = [lambda trainer, loss: trainer.log.append(loss.item())]

    def compute_loss(self, batch):
        x, y = batch
        # fault: return (self.model(x) - y).div(self.steps != 4).pow(2).mean()
        return (self.model(x) - y).pow(2).mean()

    def step(self, batch):
        self.model.train()
        loss = self.compute_loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        for callback in self.callbacks:
            callback(self, loss)
        return loss


torch.manual_seed(0)
model = nn.Linear(4, 1)
trainer = Trainer(model, lr=1e-2)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for batch in zip(x, y, strict=True):
    loss = trainer.step(batch)
