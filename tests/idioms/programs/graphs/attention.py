"""Graph attention: a softmax over each node's edges by scatter_reduce."""

import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.score = nn.Linear(4, 6), nn.Linear(12, 1)

    def forward(self, x, source, target):
        h = self.project(x)
        score = nn.functional.leaky_relu(self.score(torch.cat([h[source], h[target]], -1)))[:, 0]
        top = torch.full((len(x),), -torch.inf).scatter_reduce(0, target, score.detach(), "amax")
        # fault: weight = (score - top.min()).exp()
        weight = (score - top[target]).exp()
        total = torch.zeros(len(x)).index_add(0, target, weight)
        return torch.zeros(len(x), 6).index_add(
            0, target, h[source] * (weight / total[target])[:, None]
        )


torch.manual_seed(0)
model = Attention()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, (source, target) = torch.randn(10, 4), torch.randint(0, 8, (2, 30))

for step in range(6):
    optimizer.zero_grad()
    loss = (model(x, source, target) - 1).pow(2).mean()
    loss.backward()
    optimizer.step()
