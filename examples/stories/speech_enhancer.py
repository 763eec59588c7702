"""A speech enhancer: a complex mask over an STFT, a generator and a discriminator, mixed precision.

What happens: the loss is fine for many steps, then it is NaN for good. A warning had said,
once, that ComplexHalf support is experimental.

What people blamed: `torch.stft` under autocast, and mixed precision as a whole.

What is true here: the spectrum stays complex64 throughout. The mask network ends in half
precision, and `view_as_complex` of its half output, outside autocast, is born ComplexHalf.
The mask is applied twice (a second stage refines it), so its square has to fit into half:
when a louder passage comes, it does not, and the product overflows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stories import Story

SAMPLES, BATCH, FFT, HOP = 2048, 2, 256, 64
BINS = FFT // 2 + 1


class MaskNet(nn.Module):
    """Predicts a complex mask per frequency bin; its body is activation-checkpointed.

    Without `half_mask` it runs in float32, which is the stable baseline.
    """

    def __init__(self, half_mask: bool) -> None:
        super().__init__()
        self.half_mask = half_mask
        self.body = nn.Sequential(nn.Linear(BINS, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
        self.head = nn.Linear(48, 2 * BINS)

    def forward(self, magnitude: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.float16, enabled=self.half_mask):
            features = checkpoint(self.body, magnitude, use_reentrant=False)
            pairs = self.head(features).unflatten(-1, (BINS, 2))
        return torch.view_as_complex(pairs.contiguous())


class Enhancer(nn.Module):
    """Waveform to waveform: STFT, mask in two stages, inverse STFT."""

    def __init__(self, half_mask: bool) -> None:
        super().__init__()
        self.mask = MaskNet(half_mask)
        self.register_buffer("window", torch.hann_window(FFT))

    def forward(self, wave: Tensor) -> Tensor:
        spectrum = torch.stft(wave, FFT, HOP, window=self.window, return_complex=True)
        mask = self.mask(spectrum.abs().transpose(1, 2)).transpose(1, 2)
        refined = mask * mask
        enhanced = spectrum * refined
        return torch.istft(enhanced, FFT, HOP, window=self.window, length=wave.shape[-1])


def build(broken: bool = True, onset: int = 12, seed: int = 0) -> Story:
    """Builds the program; a louder passage comes in step `onset`."""
    torch.manual_seed(seed)
    generator = Enhancer(half_mask=broken)
    discriminator = nn.Sequential(
        nn.Conv1d(1, 8, 15, 4), nn.LeakyReLU(0.2), nn.Conv1d(8, 1, 15, 4), nn.AdaptiveAvgPool1d(1)
    )
    opt_g = torch.optim.Adam(generator.parameters(), lr=1e-3)
    opt_d = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
    scaler_g = torch.amp.GradScaler("cpu", init_scale=16.0)
    scaler_d = torch.amp.GradScaler("cpu", init_scale=16.0)
    noise = torch.Generator().manual_seed(seed)
    clock = {"step": -1}

    def batch() -> tuple[Tensor, Tensor]:
        time = torch.arange(SAMPLES) / SAMPLES
        pitch = torch.randint(20, 60, (BATCH, 1), generator=noise)
        loudness = 100.0 if clock["step"] == onset else 0.5
        clean = loudness * torch.sin(2 * torch.pi * pitch * time)
        return clean + 0.2 * loudness * torch.randn(BATCH, SAMPLES, generator=noise), clean

    def update(loss: Tensor, model: nn.Module, optimizer, scaler) -> None:
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    def score(wave: Tensor) -> Tensor:
        return discriminator(wave[:, None])

    def step_fn() -> dict[str, Tensor]:
        clock["step"] += 1
        noisy, clean = batch()
        opt_d.zero_grad()
        with torch.no_grad():
            fake = generator(noisy)
        level = clean.abs().mean()
        real_score, fake_score = score(clean / level), score(fake / level)
        loss_d = ((real_score - 1) ** 2).mean() + (fake_score**2).mean()
        update(loss_d, discriminator, opt_d, scaler_d)
        opt_g.zero_grad()
        enhanced = generator(noisy)
        loss_g = nn.functional.l1_loss(enhanced, clean) / level
        loss_g = loss_g + 0.01 * ((score(enhanced / level) - 1) ** 2).mean()
        update(loss_g, generator, opt_g, scaler_g)
        return {"loss_g": loss_g.detach(), "loss_d": loss_d.detach()}

    return Story(
        {"generator": generator, "discriminator": discriminator},
        step_fn,
        {"optimizers": (opt_g, opt_d), "scalers": (scaler_g, scaler_d)},
    )
