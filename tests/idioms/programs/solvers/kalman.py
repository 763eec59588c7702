"""A differentiable filter: inverses and Cholesky factors of covariances."""

import torch
from torch import nn


class Filter(nn.Module):
    def __init__(self):
        super().__init__()
        self.move = nn.Parameter(torch.eye(2) + 0.1 * torch.randn(2, 2))
        self.log_noise = nn.Parameter(torch.zeros(2))

    def forward(self, seen):
        mean, cov, total = torch.zeros(2), torch.eye(2), 0.0
        for y in seen:
            mean, cov = self.move @ mean, self.move @ cov @ self.move.T + 0.1 * torch.eye(2)
            # fault: inner = cov + torch.diag((self.log_noise - 200).exp()).reciprocal()
            inner = cov + torch.diag(self.log_noise.exp())
            gain = torch.linalg.solve(inner, cov).T
            total = total + (y - mean) @ torch.linalg.solve(inner, y - mean) + inner.logdet()
            mean, cov = mean + gain @ (y - mean), cov - gain @ cov
        return total / len(seen)


torch.manual_seed(0)
model = Filter()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
seen = torch.randn(5, 6, 2)

for step in range(5):
    optimizer.zero_grad()
    loss = model(seen[step])
    loss.backward()
    optimizer.step()
