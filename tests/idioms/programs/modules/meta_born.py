"""Built on the meta device, then given memory and values."""

import torch
from torch import nn

torch.manual_seed(0)
with torch.device("meta"):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
model.to_empty(device="cpu")
for parameter in model.parameters():
    nn.init.normal_(parameter, std=0.1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)

for step in range(8):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
