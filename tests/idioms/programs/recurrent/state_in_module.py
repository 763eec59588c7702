"""The state lives in an attribute of the module, detached after every update."""

import torch
from torch import nn


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.RNN(3, 5, batch_first=True), nn.Linear(5, 1)
        self.hidden = None

    def forward(self, x):
        out, self.hidden = self.rnn(x, self.hidden)
        # fault: return self.head(out).exp().exp().exp().exp().exp()
        return self.head(out)


torch.manual_seed(0)
model = Stateful()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 2, 4, 3), torch.randn(8, 2, 4, 1)
y[5] += 50

for step in range(8):
    optimizer.zero_grad()
    loss = (model(x[step]) - y[step]).abs().mean()
    loss.backward()
    optimizer.step()
    model.hidden = model.hidden.detach()
    if step == 4:
        model.hidden = None
