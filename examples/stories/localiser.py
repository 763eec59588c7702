"""A sound localiser that does not learn: nothing is NaN, and nothing moves.

What happens: the training loss stays where it began, epoch after epoch.

What people blamed: the data, the eigen-decomposition, the learning rate.

What is true here: the loop steps its optimizer only when the *accumulated* running loss is
finite and the micro-batch count fits, and resets that count on every batch its own check
skips, so the optimizer all but never steps. One branch is detached, so its parameters never
get a gradient at all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stories import Story

MICS, ACCUMULATE = 4, 4


class Localiser(nn.Module):
    """Covariance of microphone signals, its eigenvectors, and a small network on top."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.detached = detached
        self.front = nn.Linear(MICS, MICS)
        self.head = nn.Sequential(nn.Linear(MICS * MICS, 16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, signals: Tensor) -> Tensor:
        mixed = self.front(signals)
        if self.detached:
            mixed = mixed.detach()
        covariance = mixed.transpose(1, 2) @ mixed / mixed.shape[1]
        return self.head(covariance.flatten(1))


def build(broken: bool = True, seed: int = 0) -> Story:
    """Builds the program."""
    torch.manual_seed(seed)
    model = Localiser(detached=broken)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    noise = torch.Generator().manual_seed(seed)
    clock = {"batches": 0, "micro": 0, "updates": 0, "running": 0.0}

    def step_fn() -> Tensor:
        clock["batches"] += 1
        angle = torch.rand(8, 1, generator=noise) * 3
        wave = torch.randn(8, 32, 1, generator=noise)
        delays = torch.cos(angle[:, None] - torch.arange(MICS) * 0.7)
        signals = wave * delays + 0.01 * torch.randn(8, 32, MICS, generator=noise)
        target = torch.cat([angle.cos(), angle.sin()], 1)
        loss = (model(signals) - target).pow(2).mean()
        (loss / ACCUMULATE).backward()
        clock["micro"] += 1
        if broken and clock["batches"] % 3 == 0:
            clock["micro"] = 0  # "skip unstable batches": every third, whatever it holds
        if clock["micro"] == ACCUMULATE:
            clock["running"] += loss.item()
            clock["micro"] = 0
            clock["updates"] += 1
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    return Story(model, step_fn, {"optimizer": optimizer, "clock": clock})
