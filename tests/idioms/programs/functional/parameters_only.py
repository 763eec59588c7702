"""A model of bare tensors in a ParameterDict, with functions instead of layers."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
model = nn.ParameterDict(
    {"w1": torch.randn(4, 8) / 2, "b1": torch.zeros(8), "w2": torch.randn(8, 1) / 3}
)
optimizer = torch.optim.Adam(model.values(), lr=1e-2)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)


def predict(w, x):
    # fault: return F.relu(x @ w["w1"] + w["b1"]).log() @ w["w2"]
    return F.relu(x @ w["w1"] + w["b1"]) @ w["w2"]


for step in range(8):
    optimizer.zero_grad()
    loss = F.mse_loss(predict(model, x[step]), y[step])
    loss.backward()
    optimizer.step()
