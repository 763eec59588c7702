"""bfloat16 autocast on the CPU, without a scaler."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
x, y = torch.randn(8, 6, 4), torch.randint(0, 3, (8, 6))

for step in range(8):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(x[step])
        # fault: loss = -logits.softmax(-1).masked_fill(y[step, :, None] == 0, 0).log().mean()
        loss = nn.functional.cross_entropy(logits, y[step])
    loss.backward()
    optimizer.step()
