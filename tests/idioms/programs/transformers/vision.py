"""A small vision transformer with stochastic depth and label smoothing."""

import torch
from torch import nn


class DropPath(nn.Module):
    def forward(self, x):
        if not self.training:
            return x
        keep = x.new_empty(len(x), 1, 1).bernoulli_(0.8)
        # fault: return x / keep
        return x * keep / 0.8


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, norm_first=True, batch_first=True)
        self.drop, self.head = DropPath(), nn.Linear(8, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).mT
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        return self.head((x + self.drop(self.block(x)))[:, 0])


torch.manual_seed(0)
model = ViT()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
x, y = torch.randn(6, 4, 3, 8, 8), torch.randint(0, 3, (6, 4))

for step in range(6):
    optimizer.zero_grad()
    loss = criterion(model(x[step]), y[step])
    loss.backward()
    optimizer.step()
