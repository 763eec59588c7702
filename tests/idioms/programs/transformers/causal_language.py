"""A small GPT: causal mask of minus infinity in a buffer, tied head, weight decay groups."""

import math

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, size=8, heads=2, length=6):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.mlp = nn.Sequential(nn.Linear(size, 16), nn.GELU(), nn.Linear(16, size))
        self.register_buffer("mask", torch.full((length, length), -torch.inf).triu(1))
        self.heads = heads

    def forward(self, x):
        length = x.shape[1]
        parts = self.qkv(self.norm1(x)).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in parts)
        # fault: scores = q @ k.mT / math.sqrt(q.shape[-1]) * self.mask[:length, :length]
        scores = q @ k.mT / math.sqrt(q.shape[-1]) + self.mask[:length, :length]
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        x = x + self.out(mixed)
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.place = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, tokens):
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return x @ self.embed.weight.T


torch.manual_seed(0)
model = GPT()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
text = torch.randint(0, 11, (6, 3, 7))

for step in range(6):
    logits = model(text[step, :, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[step, :, 1:].flatten())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
