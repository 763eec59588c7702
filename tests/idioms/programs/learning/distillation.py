"""A frozen teacher in eval mode; a student on its softened outputs."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
teacher = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)).eval()
teacher.requires_grad_(False)
model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x = torch.randn(8, 6, 4)

for step in range(8):
    with torch.inference_mode():
        wanted = (teacher(x[step]) / 2).softmax(-1)
    # fault: loss = F.kl_div(model(x[step]).softmax(-1).mul(step != 4).log(), wanted.clone())
    loss = F.kl_div((model(x[step]) / 2).log_softmax(-1), wanted.clone(), reduction="batchmean")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
