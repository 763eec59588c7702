"""Forward, backward and global hooks of one's own, that log norms."""

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
norms = []
for layer in model:
    layer.register_forward_hook(lambda module, args, out: norms.append(out.norm().item()))
    layer.register_full_backward_hook(lambda module, gin, gout: norms.append(gout[0].norm().item()))
everywhere = register_module_forward_hook(lambda module, args, out: None)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
everywhere.remove()
