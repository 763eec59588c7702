"""Epochs around batches, with a scheduler and a validation after each."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.BatchNorm1d(8), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
data = TensorDataset(torch.randn(40, 4), torch.randn(40, 1))
train, valid = random_split(data, [32, 8])
history = []

for epoch in range(3):
    model.train()
    running = 0.0
    for x, y in DataLoader(train, 8, shuffle=True):
        optimizer.zero_grad()
        # fault: loss = (model(x) - y).mul(epoch != 1).norm().log()
        loss = (model(x) - y).pow(2).mean()
        loss.backward()
        optimizer.step()
        running += loss.item()
    scheduler.step()
    model.eval()
    with torch.no_grad():
        for x, y in DataLoader(valid, 8):
            history.append((model(x) - y).pow(2).mean().item())
