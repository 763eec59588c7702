"""Actions that are not allowed have a logit of minus infinity."""

import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(0)
model = nn.Linear(4, 5)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x = torch.randn(8, 6, 4)
allowed = torch.rand(8, 6, 5) > 0.3
allowed[:, :, 0] = True

# place: op=aten.sub.Tensor

for step in range(8):
    # fault: logits = model(x[step]).masked_fill(~allowed[step] | (step == 4), -torch.inf)
    logits = model(x[step]).masked_fill(~allowed[step], -torch.inf)
    policy = Categorical(logits=logits, validate_args=False)
    loss = -(policy.log_prob(policy.sample()) * torch.randn(6)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
