"""L-BFGS, whose step evaluates a closure several times."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe")
x = torch.rand(16, 2)
y = x.prod(1, keepdim=True)


def closure():
    optimizer.zero_grad()
    # fault: loss = (model(x) - y).pow(2).mean().sub(9 * (step == 2)).log()
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    return loss


for step in range(5):
    loss = optimizer.step(closure)
