"""MoCo: a momentum encoder and a queue of keys in a buffer, written in place."""

import copy

import torch
import torch.nn.functional as F
from torch import nn


class MoCo(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(6, 4)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(4, 16), dim=0))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys):
        place = int(self.pointer)
        self.queue[:, place : place + len(keys)] = keys.T
        self.pointer[0] = (place + len(keys)) % 16

    def forward(self, a, b):
        q = F.normalize(self.query(a), dim=-1)
        with torch.no_grad():
            for old, new in zip(self.key.parameters(), self.query.parameters(), strict=True):
                old.mul_(0.9).add_(new, alpha=0.1)
            # fault: k = self.key(b) / self.key(b).mul(0).norm(dim=-1, keepdim=True)
            k = F.normalize(self.key(b), dim=-1)
        logits = torch.cat([(q * k).sum(-1, keepdim=True), q @ self.queue.clone()], 1) / 0.1
        self.enqueue(k)
        return logits


torch.manual_seed(0)
model = MoCo()
optimizer = torch.optim.SGD(model.query.parameters(), lr=0.05)
x = torch.randn(8, 4, 6)

for step in range(8):
    logits = model(x[step] + 0.1 * torch.randn(4, 6), x[step])
    loss = F.cross_entropy(logits, torch.zeros(4, dtype=torch.long))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
