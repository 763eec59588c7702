"""A neural ODE, integrated by Runge-Kutta steps inside the graph."""

import itertools

import torch
from torch import nn


class ODE(nn.Module):
    def __init__(self):
        super().__init__()
        self.field = nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 2))

    def slope(self, t, state):
        return self.field(torch.cat([state, t.expand(len(state), 1)], -1))

    def forward(self, state, times):
        path = [state]
        for a, b in itertools.pairwise(times):
            h = b - a
            k1 = self.slope(a, state)
            k2 = self.slope(a + h / 2, state + h / 2 * k1)
            k3 = self.slope(a + h / 2, state + h / 2 * k2)
            k4 = self.slope(b, state + h * k3)
            # fault: state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4) / (a < 0.4)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            path.append(state)
        return torch.stack(path)


torch.manual_seed(0)
model = ODE()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
times, start = torch.linspace(0, 1, 9), torch.randn(6, 4, 2)

for step in range(6):
    optimizer.zero_grad()
    loss = (model(start[step], times)[-1] - start[step].flip(-1)).pow(2).mean()
    loss.backward()
    optimizer.step()
