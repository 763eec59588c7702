"""Average weights are swapped in for an evaluation inside the loop, and out again."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
average = {k: v.clone() for k, v in model.state_dict().items()}
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(9, 6, 4), torch.randn(9, 6, 1)
scores = []

for step in range(9):
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
    for key, value in model.state_dict().items():
        average[key].mul_(0.9).add_(value, alpha=0.1)
    if step % 3 == 2:
        kept = {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(average)
        with torch.no_grad():
            scores.append((model(x[0]) - y[0]).pow(2).mean().item())
        model.load_state_dict(kept)
