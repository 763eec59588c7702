"""An ODE whose backward is an integration of its own, in a custom function."""

import torch
from torch import nn


class Integrate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, field, state, count, *parameters):
        with torch.no_grad():
            for _ in range(count):
                state = state + field(state) / count
        ctx.field, ctx.count = field, count
        ctx.save_for_backward(state, *parameters)
        return state

    @staticmethod
    def backward(ctx, adjoint):
        state, *parameters = ctx.saved_tensors
        totals = [torch.zeros_like(p) for p in parameters]
        for _ in range(ctx.count):
            with torch.enable_grad():
                state = state.detach().requires_grad_()
                out = ctx.field(state)
            first, *slopes = torch.autograd.grad(out, (state, *parameters), adjoint / ctx.count)
            adjoint = adjoint + first
            totals = [a + b for a, b in zip(totals, slopes, strict=True)]
            state = state.detach() - out.detach() / ctx.count
        return None, adjoint, None, *totals


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
start = torch.randn(6, 4, 2)

for step in range(6):
    optimizer.zero_grad()
    end = Integrate.apply(model, start[step], 5, *model.parameters())
    # fault: loss = (end - start[step].flip(-1)).div(step != 3).pow(2).mean()
    loss = (end - start[step].flip(-1)).pow(2).mean()
    loss.backward()
    optimizer.step()
