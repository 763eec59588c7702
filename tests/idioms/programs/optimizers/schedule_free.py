"""A schedule-free optimizer: the weights are swapped for evaluation and back."""

import torch
from torch import nn


class ScheduleFree(torch.optim.Optimizer):
    def __init__(self, params, lr=0.05, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta, "k": 0, "training": True})

    @torch.no_grad()
    def swap(self, training):
        for group in self.param_groups:
            if group["training"] != training:
                weight = 1 - 1 / group["beta"] if not training else 1 - group["beta"]
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.lerp_(self.state[p]["z"], weight)
                group["training"] = training

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            c = 1 / (group["k"] + 1)
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                p.lerp_(z, c)
                p.add_(p.grad, alpha=group["lr"] * (group["beta"] * (1 - c) - 1))
                z.sub_(p.grad, alpha=group["lr"])
            group["k"] += 1


torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = ScheduleFree(model.parameters())
x, y = torch.randn(9, 6, 4), torch.randn(9, 6, 1)

for step in range(9):
    model.train()
    optimizer.swap(training=True)
    optimizer.zero_grad()
    # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
    loss = (model(x[step]) - y[step]).pow(2).mean()
    loss.backward()
    optimizer.step()
    if step % 3 == 2:
        optimizer.swap(training=False)
        with torch.no_grad():
            validation = (model(x[0]) - y[0]).pow(2).mean()
