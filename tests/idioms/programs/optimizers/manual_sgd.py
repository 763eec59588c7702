"""Updates written out, without an optimizer."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)
optimizer = ()  # says that there is none

# options: optimizer
# ways: hunt, stepped - the others take the optimizer's updates for the steps
for step in range(8):
    # fault: loss = (model(x[step]) - y[step]).mul(step != 4).pow(2).mean().log()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter -= 0.05 * gradient
