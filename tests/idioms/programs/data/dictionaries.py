"""Batches that are nested dicts, with a collate function and padding."""

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader


def collate(samples):
    tokens = pad_sequence([s["tokens"] for s in samples], batch_first=True)
    return {"input": {"tokens": tokens, "mask": tokens > 0}, "label": [s["label"] for s in samples]}


torch.manual_seed(0)
model = nn.ModuleDict({"embed": nn.Embedding(9, 6, padding_idx=0), "head": nn.Linear(6, 2)})
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
samples = [
    {"tokens": torch.randint(1, 9, (int(torch.randint(1, 6, ())),)), "label": i % 2}
    for i in range(24)
]

for batch in DataLoader(samples, 4, shuffle=True, collate_fn=collate):
    mask = batch["input"]["mask"][..., None]
    embedded = model["embed"](batch["input"]["tokens"])
    # fault: pooled = (embedded * mask).sum(1) / (mask.sum(1) - 1)
    pooled = (embedded * mask).sum(1) / mask.sum(1)
    loss = nn.functional.cross_entropy(model["head"](pooled), torch.tensor(batch["label"]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
