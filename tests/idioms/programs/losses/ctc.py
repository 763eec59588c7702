"""CTC with padded targets and zero_infinity."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(8, 5)
criterion = nn.CTCLoss(blank=0, zero_infinity=True)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x = torch.randn(8, 12, 3, 8)
targets = torch.randint(1, 5, (8, 3, 4))
lengths = torch.tensor([12, 10, 8]), torch.tensor([4, 3, 2])

for step in range(8):
    optimizer.zero_grad()
    # fault: log_probs = model(x[step]).softmax(-1).mul(step != 4).log()
    log_probs = model(x[step]).log_softmax(-1)
    loss = criterion(log_probs, targets[step], *lengths)
    loss.backward()
    optimizer.step()
