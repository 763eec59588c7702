"""Packed sequences of different lengths."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 6, batch_first=True, bidirectional=True), nn.Linear(12, 3)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        # fault: return self.head(out.log())
        return self.head(out)


torch.manual_seed(0)
model = Tagger()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(6, 3, 5, 4), torch.randint(0, 3, (6, 3, 5))
lengths = torch.tensor([3, 5, 2])
y[:, 0, 3:], y[:, 2, 2:] = -100, -100

for step in range(6):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x[step], lengths).flatten(0, 1), y[step].flatten())
    loss.backward()
    optimizer.step()
