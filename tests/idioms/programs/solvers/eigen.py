"""A loss on eigenvalues of a symmetric matrix, well apart."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 9)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
x = torch.randn(6, 5, 4)

for step in range(6):
    raw = model(x[step]).reshape(-1, 3, 3)
    # fault: matrix = (raw + raw.mT).mul(step != 3) + torch.eye(3)
    matrix = raw + raw.mT + torch.diag(torch.tensor([0.0, 5.0, 10.0]))
    values, vectors = torch.linalg.eigh(matrix)
    loss = values.pow(2).mean() + vectors[..., 0].abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
# place: op=aten.linalg_eigh.default
# place: node=LinalgEighBackward0
