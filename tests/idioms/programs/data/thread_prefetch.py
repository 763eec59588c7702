"""A thread fills a queue with batches."""

import queue
import threading

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)
ready = queue.Queue(maxsize=2)


def fill():
    for pair in zip(x, y, strict=True):
        ready.put(pair)
    ready.put(None)


threading.Thread(target=fill, daemon=True).start()

# ways: hunt, cell, run, guard - the others run a step twice, and a queue gives each batch once
for a, b in iter(ready.get, None):
    optimizer.zero_grad()
    # fault: loss = (model(a) - b).clamp(min=0).log().mean()
    loss = (model(a) - b).pow(2).mean()
    loss.backward()
    optimizer.step()
