"""Domain adaptation: the gradient is reversed by a custom function."""

import torch
import torch.nn.functional as F
from torch import nn


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.weight * gradient, None


torch.manual_seed(0)
model = nn.ModuleDict(
    {"body": nn.Linear(4, 6), "label": nn.Linear(6, 2), "domain": nn.Linear(6, 2)}
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y, domain = torch.randn(8, 6, 4), torch.randint(0, 2, (8, 6)), torch.randint(0, 2, (8, 6))

for step in range(8):
    hidden = model["body"](x[step]).relu()
    turned = model["domain"](Reverse.apply(hidden, step / 8))
    # fault: turned = turned / (step != 4)
    turned = turned + 0.0
    loss = F.cross_entropy(model["label"](hidden), y[step]) + F.cross_entropy(turned, domain[step])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
