"""Samples are drawn from the model now and then, with its own generate method."""

import torch
from torch import nn


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.rnn, self.out = (
            nn.Embedding(9, 8),
            nn.GRU(8, 8, batch_first=True),
            nn.Linear(8, 9),
        )

    def forward(self, tokens):
        # fault: return self.out(self.rnn(self.embed(tokens))[0]).mul(0).log()
        return self.out(self.rnn(self.embed(tokens))[0])

    @torch.no_grad()
    def generate(self, tokens, count):
        for _ in range(count):
            logits = self(tokens)[:, -1] / 0.8
            low = logits < logits.topk(3).values[:, -1:]
            chances = logits.masked_fill(low, -float("inf")).softmax(-1)
            tokens = torch.cat([tokens, torch.multinomial(chances, 1)], 1)
        return tokens


torch.manual_seed(0)
model = Language()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
text = torch.randint(0, 9, (8, 4, 7))
drawn = []

for step in range(8):
    model.train()
    loss = nn.functional.cross_entropy(model(text[step, :, :-1]).mT, text[step, :, 1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 4 == 3:
        model.eval()
        drawn.append(model.generate(text[step, :1, :2], 5))
