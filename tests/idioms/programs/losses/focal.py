"""A focal loss in log space with weights of classes, and ignored labels."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.randn(8, 6, 4), torch.randint(0, 3, (8, 6))
y[:, 0] = -100

for step in range(8):
    # fault: log_p = model(x[step]).mul(1e4).softmax(-1).log()
    log_p = model(x[step]).log_softmax(-1)
    picked = -F.nll_loss(log_p, y[step], ignore_index=-100, reduction="none")
    loss = (-((1 - picked.exp()) ** 2) * picked).sum() / (y[step] != -100).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
