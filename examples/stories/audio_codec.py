"""A neural audio codec: a residual vector quantiser with codebooks kept by moving averages.

What happens: the loss is NaN from the first epoch.

What people blamed: the STFT loss on half tensors, and the learning rate.

What is true here: the codebooks are drawn from `randn` a hundred times too large, so the
residuals of every stage are large as well; their squared distances, summed in half
precision, overflow to Inf, and the commitment loss with them. It happens in `quantize`, a
method that is not `forward`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stories import Story

CODES, SIZE, STAGES, SAMPLES, FFT = 16, 32, 3, 512, 64


class Quantiser(nn.Module):
    """One stage: the nearest code, moving averages as buffers."""

    def __init__(self, scale: float, half: bool) -> None:
        super().__init__()
        self.half_distances = half
        self.register_buffer("codes", torch.randn(CODES, SIZE) * scale)

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the nearest codes and the commitment loss."""
        index = torch.cdist(x.detach(), self.codes).argmin(-1)
        chosen = self.codes[index]
        difference = x - chosen
        if self.half_distances:
            difference = difference.half()
        commitment = difference.square().sum(-1).float().mean()
        if self.training:
            with torch.no_grad():
                self.codes[index] = 0.9 * self.codes[index] + 0.1 * x
        return x + (chosen - x).detach(), commitment


class Codec(nn.Module):
    """Frames of a waveform through an encoder, quantiser stages and a decoder."""

    def __init__(self, scale: float, half: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(SIZE, 64), nn.ELU(), nn.Linear(64, SIZE))
        self.stages = nn.ModuleList(Quantiser(scale, half) for _ in range(STAGES))
        self.decoder = nn.Sequential(nn.Linear(SIZE, 64), nn.ELU(), nn.Linear(64, SIZE))

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        residual = self.encoder(wave.unflatten(-1, (-1, SIZE)))
        total, commitment = torch.zeros_like(residual), residual.new_zeros(())
        for stage in self.stages:
            found, loss = stage.quantize(residual)
            total, residual = total + found, residual - found
            commitment = commitment + loss
        return self.decoder(total).flatten(1), commitment


def spectral_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Difference of magnitudes, in float32."""
    window = torch.hann_window(FFT)
    first, second = (
        torch.stft(x.float(), FFT, 16, window=window, return_complex=True).abs()
        for x in (made, wanted)
    )
    return (first - second).abs().mean()


def build(broken: bool = True, seed: int = 0) -> Story:
    """Builds the program; it breaks in its first step."""
    torch.manual_seed(seed)
    codec = Codec(scale=100.0 if broken else 0.3, half=broken)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=1e-3)
    noise = torch.Generator().manual_seed(seed)
    time = torch.arange(SAMPLES) / SAMPLES

    def step_fn() -> Tensor:
        pitch = torch.randint(5, 30, (4, 1), generator=noise)
        wave = torch.sin(2 * torch.pi * pitch * time)
        made, commitment = codec(wave)
        loss = spectral_loss(made, wave) + (made - wave).abs().mean() + 0.25 * commitment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Story(codec, step_fn, {"optimizer": optimizer})
