"""Gradients of single samples, clipped one by one, with noise added (private training)."""

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)
# options: optimizer


def loss_of(weights, x, y):
    return (functional_call(model, weights, (x[None],)) - y).pow(2).mean()


for step in range(8):
    weights = {k: p.detach() for k, p in model.named_parameters()}
    slopes = vmap(grad(loss_of), in_dims=(None, 0, 0))(weights, x[step], y[step])
    norms = sum(g.flatten(1).pow(2).sum(1) for g in slopes.values()).sqrt()
    factor = (1.0 / (norms + 1e-6)).clamp(max=1.0)
    for name, parameter in model.named_parameters():
        kept = torch.einsum("i,i...->...", factor, slopes[name]) / len(norms)
        parameter.grad = kept + 0.01 * torch.randn_like(kept)
    optimizer.step()
