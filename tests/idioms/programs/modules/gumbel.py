"""Discrete codes by a Gumbel softmax whose temperature falls."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
model = nn.ModuleDict({"encode": nn.Linear(6, 5), "decode": nn.Linear(5, 6)})
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x = torch.randn(8, 6, 6)

for step in range(8):
    logits = model["encode"](x[step])
    # fault: codes = (logits / (0.0 if step == 4 else 1.0)).softmax(-1)
    codes = F.gumbel_softmax(logits, tau=max(0.3, 1 - step / 10), hard=step > 5)
    loss = (model["decode"](codes) - x[step]).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
