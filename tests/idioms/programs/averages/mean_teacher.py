"""A teacher that is a moving average of the student, with a consistency loss."""

import copy

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 3))
teacher = copy.deepcopy(model)
for parameter in teacher.parameters():
    parameter.detach_()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(8, 6, 4), torch.randint(0, 3, (8, 6))

for step in range(8):
    with torch.no_grad():
        wanted = teacher(x[step] + 0.05 * torch.randn(6, 4)).softmax(-1)
    out = model(x[step])
    # fault: out = out.div(step != 4)
    out = out * 1.0
    loss = nn.functional.cross_entropy(out, y[step]) + (out.softmax(-1) - wanted).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    alpha = min(1 - 1 / (step + 1), 0.9)
    for a, b in zip(teacher.parameters(), model.parameters(), strict=True):
        a.data.mul_(alpha).add_(b.data, alpha=1 - alpha)
