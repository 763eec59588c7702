"""nn.TransformerEncoder with padded keys; a validation through its fast path."""

import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.embed, self.encoder = (
            nn.Embedding(9, 8, padding_idx=0),
            nn.TransformerEncoder(layer, 2),
        )
        self.head = nn.Linear(8, 2)

    def forward(self, tokens):
        x = self.encoder(self.embed(tokens), src_key_padding_mask=tokens == 0)
        # fault: return self.head(x[:, 0]).div(tokens[:, -1:])
        return self.head(x[:, 0])


torch.manual_seed(0)
model = Classifier()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
tokens, y = torch.randint(1, 9, (6, 4, 5)), torch.randint(0, 2, (6, 4))
tokens[:, 2, 3:], tokens[:, 3, 2:] = 0, 0

for step in range(6):
    model.train()
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(tokens[step]), y[step])
    loss.backward()
    optimizer.step()
    model.eval()
    with torch.no_grad():
        right = (model(tokens[0]).argmax(-1) == y[0]).float().mean().item()
