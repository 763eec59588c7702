"""One optimizer of each of many kinds, each for a layer of its own."""

import torch
from torch import nn

torch.manual_seed(0)
kinds = [
    torch.optim.Adadelta,
    torch.optim.Adafactor,
    torch.optim.Adagrad,
    torch.optim.Adamax,
    torch.optim.ASGD,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Rprop,
]
model = nn.Sequential(*(nn.Linear(4, 4) for _ in kinds), nn.Linear(4, 1))
optimizers = [kind(layer.parameters(), lr=1e-3) for kind, layer in zip(kinds, model, strict=False)]
optimizers.append(torch.optim.SGD(model[-1].parameters(), lr=1e-2, dampening=0.1, momentum=0.5))
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    model.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
