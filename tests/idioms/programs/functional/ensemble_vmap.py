"""An ensemble trained at once: stacked weights, vmap over functional_call."""

import copy

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

torch.manual_seed(0)
models = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)) for _ in range(3)]
weights, buffers = stack_module_state(models)
skeleton = copy.deepcopy(models[0]).to("meta")
model = nn.ParameterDict({k.replace(".", "_"): v for k, v in weights.items()})
del models
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)


def one(weight, buffer, batch):
    return functional_call(skeleton, (weight, buffer), (batch,))


for step in range(8):
    optimizer.zero_grad()
    stacked = {k: model[k.replace(".", "_")] for k in weights}
    out = vmap(one, in_dims=(0, 0, None))(stacked, buffers, x[step])
    # fault: loss = (out - y[step]).div(step != 4).pow(2).mean()
    loss = (out - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
