"""Several tasks weighted by learned log variances."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.ModuleDict({"body": nn.Linear(4, 8), "a": nn.Linear(8, 1), "b": nn.Linear(8, 3)})
model.register_parameter("log_vars", nn.Parameter(torch.zeros(2)))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y, labels = torch.randn(8, 6, 4), torch.randn(8, 6, 1), torch.randint(0, 3, (8, 6))

for step in range(8):
    hidden = model["body"](x[step]).relu()
    losses = torch.stack(
        [
            (model["a"](hidden) - y[step]).pow(2).mean(),
            nn.functional.cross_entropy(model["b"](hidden), labels[step]),
        ]
    )
    # fault: loss = ((-model.log_vars + 100 * (step == 4)).exp() * losses + model.log_vars).sum()
    loss = ((-model.log_vars).exp() * losses + model.log_vars).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
