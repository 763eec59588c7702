"""A linear-chain CRF: forward algorithm by logsumexp, transitions that are forbidden."""

import torch
from torch import nn


class CRF(nn.Module):
    def __init__(self, tags=4):
        super().__init__()
        self.emit = nn.Linear(6, tags)
        self.transitions = nn.Parameter(torch.randn(tags, tags) * 0.1)
        forbidden = torch.zeros(tags, tags)
        forbidden[2, 0] = -10000.0
        self.register_buffer("forbidden", forbidden)

    def forward(self, x, tags):
        emissions, moves = self.emit(x), self.transitions + self.forbidden
        alpha = score = emissions[:, 0]
        score = score.gather(1, tags[:, :1])[:, 0]
        for t in range(1, x.shape[1]):
            # fault: alpha = (alpha[:, :, None] + moves).exp().sum(1).log() + emissions[:, t]
            alpha = (alpha[:, :, None] + moves).logsumexp(1) + emissions[:, t]
            score = score + moves[tags[:, t - 1], tags[:, t]]
            score = score + emissions[:, t].gather(1, tags[:, t : t + 1])[:, 0]
        return (alpha.logsumexp(1) - score).mean()


torch.manual_seed(0)
model = CRF()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, tags = torch.randn(6, 3, 7, 6), torch.randint(0, 2, (6, 3, 7))
x[4] *= 300

for step in range(6):
    optimizer.zero_grad()
    loss = model(x[step], tags[step])
    loss.backward()
    optimizer.step()
