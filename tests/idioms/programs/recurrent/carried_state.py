"""The hidden state is carried over steps, detached (truncated backpropagation)."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.LSTM(4, 6, batch_first=True)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, y = torch.randn(8, 3, 5, 4), torch.randn(8, 3, 5, 6)
state = None

for step in range(8):
    optimizer.zero_grad()
    out, state = model(x[step], state)
    state = tuple(s.detach() for s in state)
    # fault: loss = (out - y[step]).div(step != 4).pow(2).mean()
    loss = (out - y[step]).pow(2).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
