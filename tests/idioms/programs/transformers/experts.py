"""A mixture of experts: top-2 routing, index_add back, a balancing loss; some get nothing."""

import torch
from torch import nn


class Experts(nn.Module):
    def __init__(self, size=6, count=6):
        super().__init__()
        self.gate = nn.Linear(size, count)
        self.experts = nn.ModuleList([nn.Linear(size, size) for _ in range(count)])

    def forward(self, x):
        chances = self.gate(x).softmax(-1)
        weights, chosen = chances.topk(2, -1)
        # fault: weights = weights / (weights.sum(-1, keepdim=True) - weights.sum(-1, keepdim=True))
        weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            row, place = (chosen == number).nonzero(as_tuple=True)
            if len(row):
                out.index_add_(0, row, expert(x[row]) * weights[row, place, None])
        share = nn.functional.one_hot(chosen, len(self.experts)).float().mean((0, 1))
        return out, (share * chances.mean(0)).sum() * len(self.experts)


torch.manual_seed(0)
model = Experts()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(8, 4, 6), torch.randn(8, 4, 6)

# allows: parameters_unused

for step in range(8):
    optimizer.zero_grad()
    out, balance = model(x[step])
    loss = (out - y[step]).pow(2).mean() + 0.01 * balance
    loss.backward()
    optimizer.step()
