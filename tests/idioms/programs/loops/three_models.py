"""An encoder, a decoder and a classifier, in one list and one optimizer."""

import itertools

import torch
from torch import nn

torch.manual_seed(0)
models = [nn.Linear(4, 3), nn.Linear(3, 4), nn.Linear(3, 2)]
encoder, decoder, classifier = models
optimizer = torch.optim.Adam(itertools.chain(*(m.parameters() for m in models)), lr=1e-2)
x, y = torch.randn(8, 6, 4), torch.randint(0, 2, (8, 6))

for step in range(8):
    z = encoder(x[step])
    loss = (decoder(z) - x[step]).pow(2).mean()
    # fault: loss = loss + nn.functional.cross_entropy(classifier(z / (step != 4)), y[step])
    loss = loss + nn.functional.cross_entropy(classifier(z), y[step])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
