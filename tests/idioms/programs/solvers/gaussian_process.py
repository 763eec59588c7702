"""A Gaussian process by its marginal likelihood, with a distribution of torch."""

import torch
from torch import nn
from torch.distributions import MultivariateNormal

torch.manual_seed(0)
model = nn.ParameterDict({"scale": torch.zeros(()), "noise": torch.tensor(-1.0)})
optimizer = torch.optim.Adam(model.values(), lr=0.05)
x = torch.linspace(0, 3, 12)[:, None]
y = x[:, 0].sin() + 0.1 * torch.randn(12)

for step in range(8):
    # fault: distance = torch.cdist(x, x) / model["scale"].mul(step != 4)
    distance = torch.cdist(x, x) / model["scale"].exp()
    kernel = (-0.5 * distance.pow(2)).exp() + model["noise"].exp() * torch.eye(12)
    loss = -MultivariateNormal(torch.zeros(12), kernel, validate_args=False).log_prob(y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
