"""Bags of words with a maximum norm, some of them empty."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential()
model.bag, model.head = nn.EmbeddingBag(20, 6, mode="mean", max_norm=1.0), nn.Linear(6, 2)
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
words, y = torch.randint(0, 20, (8, 12)), torch.randint(0, 2, (8, 4))
starts = torch.tensor([0, 4, 4, 9])

for step in range(8):
    optimizer.zero_grad()
    pooled = model.bag(words[step], starts)
    # fault: pooled = pooled / pooled.norm(dim=-1, keepdim=True)
    pooled = nn.functional.normalize(pooled, dim=-1)
    loss = nn.functional.cross_entropy(model.head(pooled), y[step])
    loss.backward()
    optimizer.step()
