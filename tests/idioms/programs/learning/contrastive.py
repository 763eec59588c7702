"""A contrastive loss with a learned temperature; the diagonal is masked by minus infinity."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
model = nn.Module()
model.net = nn.Linear(6, 4)
model.log_temperature = nn.Parameter(torch.tensor(1.0))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
x = torch.randn(8, 5, 6)

for step in range(8):
    views = torch.cat([x[step] + 0.1 * torch.randn(5, 6) for _ in range(2)])
    # fault: z = model.net(views).mul(step != 4).norm(dim=-1, keepdim=True).reciprocal()
    z = F.normalize(model.net(views), dim=-1)
    logits = (z @ z.T) * model.log_temperature.exp()
    logits = logits.masked_fill(torch.eye(10, dtype=torch.bool), float("-inf"))
    loss = F.cross_entropy(logits, torch.arange(10).roll(5))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
