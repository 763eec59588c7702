"""A diffusion model that is NaN right after it was resumed from a checkpoint.

What happens: the first steps after the resume are fine, then both predictions are NaN.

What people blamed: the checkpoint, a batch left on the wrong device, `amp` against `fp16`, the
learning rate, and clipping at the wrong place.

What is true here: the loss weights `exp(sqrt(t))` are computed in half precision and overflow
at the upper end of `t`, where the schedule of the resumed run now draws from. The prediction
itself is finite. `nan_to_num` on the logged loss hides it in the log.
"""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn

from stories import Story

SIZE, STEPS = 16, 1000


class Denoiser(nn.Module):
    """Predicts noise and variance from a noisy sample and its time."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Embedding(STEPS, SIZE)
        self.body = nn.Sequential(nn.Linear(SIZE, 32), nn.SiLU(), nn.Linear(32, 2 * SIZE))

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        noise, variance = self.body(x + self.time(t)).chunk(2, -1)
        return noise, nn.functional.softplus(variance)


def checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer) -> io.BytesIO:
    """What the first run left behind."""
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    return file


def build(broken: bool = True, onset: int = 3, seed: int = 0) -> Story:
    """Builds the resumed run; from step `onset` on the late times are drawn."""
    torch.manual_seed(seed)
    model = Denoiser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    saved = torch.load(checkpoint(model, optimizer), weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    dice = torch.Generator().manual_seed(seed)
    clock = {"step": -1, "logged": 0.0}

    def weight(t: Tensor) -> Tensor:
        time = t.half() if broken else t.float()
        return torch.exp(torch.sqrt(time)).float()

    def step_fn() -> Tensor:
        clock["step"] += 1
        limit = STEPS if clock["step"] >= onset else 100
        t = torch.randint(0, limit, (8,), generator=dice)
        batch = {"x": torch.randn(8, SIZE, generator=dice)}
        for key in batch:
            batch[key].to("cpu")  # thrown away, and harmless on one device
        noise = torch.randn(8, SIZE, generator=dice)
        predicted, variance = model(batch["x"] + noise, t)
        error = ((predicted - noise) ** 2 + variance).mean(-1)
        weights = weight(t)
        loss = (weights / weights.sum() * error).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        clock["logged"] = float(loss.detach().nan_to_num(0))
        return loss.detach()

    return Story(model, step_fn, {"optimizer": optimizer, "clock": clock})
