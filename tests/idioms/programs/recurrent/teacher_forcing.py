"""A decoder that is fed its own output now and then, as random.random says."""

import random

import torch
from torch import nn


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.cell, self.out = nn.Embedding(7, 6), nn.LSTMCell(6, 6), nn.Linear(6, 7)

    def forward(self, target, forcing):
        state, token, logits = None, target[:, 0], []
        for t in range(1, target.shape[1]):
            state = self.cell(self.embed(token), state)
            logits.append(self.out(state[0]))
            token = target[:, t] if random.random() < forcing else logits[-1].argmax(-1)
        # fault: return torch.stack(logits, 1).div(torch.zeros(1))
        return torch.stack(logits, 1)


torch.manual_seed(0)
random.seed(0)
model = Decoder()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
tokens = torch.randint(0, 7, (8, 3, 6))

for step in range(8):
    optimizer.zero_grad()
    logits = model(tokens[step], forcing=0.5)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[step, :, 1:].flatten())
    loss.backward()
    optimizer.step()
