"""Gradients by torch.func.grad, put into the parameters by hand."""

import torch
from torch import nn
from torch.func import functional_call, grad_and_value

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)
# options: optimizer


def loss_of(weights, x, y):
    return (functional_call(model, weights, (x,)) - y).pow(2).mean()


for step in range(8):
    weights = {k: p.detach() for k, p in model.named_parameters()}
    slopes, loss = grad_and_value(loss_of)(weights, x[step], y[step])
    for name, parameter in model.named_parameters():
        parameter.grad = slopes[name]
    optimizer.step()
