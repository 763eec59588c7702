"""A graph network with a sparse adjacency matrix, normalized by degree."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 2)])
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=5e-4)
edges = torch.cat([torch.randint(0, 10, (2, 25)), torch.arange(10).expand(2, -1)], 1)
adjacency = torch.sparse_coo_tensor(edges, torch.ones(35), (10, 10)).coalesce()
scale = torch.sparse.sum(adjacency, 1).to_dense().pow(-0.5)[:, None]
x, y = torch.randn(10, 4), torch.randint(0, 2, (10,))

for step in range(8):
    optimizer.zero_grad()
    hidden = scale * torch.sparse.mm(adjacency, scale * model[0](x)).relu()
    # fault: hidden = hidden.div(step != 4)
    hidden = nn.functional.dropout(hidden, 0.3)
    logits = scale * torch.sparse.mm(adjacency, scale * model[1](hidden))
    loss = nn.functional.cross_entropy(logits, y)
    loss.backward()
    optimizer.step()
