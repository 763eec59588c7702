"""The loop's work under a with statement, with a progress bar around the loader."""

import contextlib

import torch
from torch import nn
from tqdm import tqdm

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x, y = torch.randn(8, 6, 4), torch.randn(8, 6, 1)
bar = tqdm(range(8), disable=True)

for step in bar:
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        optimizer.zero_grad()
        # fault: loss = (model(x[step]) - y[step]).div(step != 4).pow(2).mean()
        loss = (model(x[step]) - y[step]).pow(2).mean()
        loss.backward()
        optimizer.step()
    bar.set_postfix(loss=loss.item())
