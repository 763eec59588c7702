"""The model computes its own loss: model.training_step(batch), forward is hardly used."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Linear(4, 8), nn.Linear(8, 1)

    def encode(self, x):
        return self.encoder(x).relu()

    def training_step(self, x, y):
        # fault: return (self.head(self.encode(x)) - y).sqrt().mean()
        return (self.head(self.encode(x)) - y).pow(2).mean()

    def configure(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


torch.manual_seed(0)
model = Net()
optimizer = model.configure()
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    loss = model.training_step(x[step], y[step])
    loss.backward()
    optimizer.step()
