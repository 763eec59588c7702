"""One encoder called three times in a step."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
criterion = nn.TripletMarginLoss(margin=1.0)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x = torch.randn(8, 3, 6, 4)

for step in range(8):
    anchor, positive, negative = (model(part) for part in x[step])
    # fault: negative = negative / (step != 4)
    negative = negative * 1.0
    loss = criterion(anchor, positive, negative)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
