"""A TorchFunctionMode of one's own that counts calls, on during the steps."""

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class Counter(TorchFunctionMode):
    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        Counter.calls += 1
        return func(*args, **(kwargs or {}))


torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    with Counter():
        # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
        loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
