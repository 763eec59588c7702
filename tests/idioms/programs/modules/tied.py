"""Embedding and output share one weight."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.ModuleDict({"embed": nn.Embedding(12, 6), "out": nn.Linear(6, 12, bias=False)})
model["out"].weight = model["embed"].weight
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
tokens = torch.randint(0, 12, (8, 4, 5))

for step in range(8):
    optimizer.zero_grad()
    logits = model["out"](model["embed"](tokens[step, :, :-1]))
    # fault: logits = logits.mul((step != 4) * 1.0).log()
    logits = logits * 1.0
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[step, :, 1:].flatten())
    loss.backward()
    optimizer.step()
