"""Training on adversarial examples made by projected gradient ascent."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.randn(6, 8, 6), torch.randint(0, 3, (6, 8))

for step in range(6):
    delta = torch.zeros(8, 6).uniform_(-0.1, 0.1)
    for _ in range(3):
        delta.requires_grad_()
        ascent = F.cross_entropy(model(x[step] + delta), y[step])
        (slope,) = torch.autograd.grad(ascent, delta)
        delta = (delta.detach() + 0.05 * slope.sign()).clamp(-0.1, 0.1)
    # fault: loss = F.cross_entropy(model(x[step] + delta.div(step != 3)), y[step])
    loss = F.cross_entropy(model(x[step] + delta), y[step])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
