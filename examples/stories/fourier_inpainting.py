"""An inpainting network with Fourier convolutions, whose BatchNorm statistics are poisoned.

What happens: training goes on with a falling loss. Then `eval()` reads the statistics and
every validation batch is non-finite: "0 valid batches"; the checkpoint writer refuses.

What people blamed: the validation data, then the checkpoint.

What is true here: the spectral branch transforms in float32, but casts the spectrum to half
for its BatchNorm. The DC bin is the sum over all pixels: for a bright image it passes 65,504
and the cast overflows. The loop sees a loss that is not finite and skips the batch, as loops
do; BatchNorm's running statistics have taken it in by then, for good.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stories import Story

SIZE = 32


class SpectralConv(nn.Module):
    """Real FFT, a 1x1 convolution over real and imaginary parts with BatchNorm, and back."""

    def __init__(self, channels: int, half: bool) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(2 * channels, affine=False)
        self.local_conv = nn.Sequential(
            nn.Conv2d(2 * channels, 2 * channels, 1), norm.half() if half else norm
        )
        self.half_norm = half

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x)
        parts = torch.cat([spectrum.real, spectrum.imag], 1)
        mixed = self.local_conv[0](parts)
        if self.half_norm:
            mixed = mixed.half()
        normed = self.local_conv[1](mixed).float().relu()
        real, imaginary = normed.chunk(2, 1)
        return torch.fft.irfft2(torch.complex(real, imaginary), s=x.shape[-2:])


class Scale(nn.Module):
    """One scale of the network: a spatial and a spectral branch."""

    def __init__(self, channels: int, half: bool) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1)
        self.ffc = SpectralConv(channels, half)

    def forward(self, x: Tensor) -> Tensor:
        return self.spatial(x) + self.ffc(x)


class Inpainter(nn.Module):
    """Image and mask in, image out."""

    def __init__(self, half: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 6, 3, padding=1)
        self.scales = nn.ModuleList([Scale(6, half)])
        self.head = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        x = self.stem(torch.cat([image * mask, mask], 1)).relu()
        for scale in self.scales:
            x = x + scale(x)
        return self.head(x)


def build(broken: bool = True, onset: int = 6, seed: int = 0) -> Story:
    """Builds the program; in step `onset` a very bright image comes."""
    torch.manual_seed(seed)
    model = Inpainter(half=broken)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    pixels = torch.Generator().manual_seed(seed)
    clock = {"step": -1, "skipped": 0}

    def batch(bright: bool) -> tuple[Tensor, Tensor]:
        image = torch.rand(4, 3, SIZE, SIZE, generator=pixels) * (2000.0 if bright else 1.0)
        mask = (torch.rand(4, 1, SIZE, SIZE, generator=pixels) > 0.2).float()
        return image, mask

    def step_fn() -> None:
        clock["step"] += 1
        image, mask = batch(clock["step"] == onset)
        loss = (model(image, mask) - image).abs().mean() / image.abs().mean()
        if not torch.isfinite(loss):
            clock["skipped"] += 1
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def evaluate() -> tuple[int, int]:
        """Returns how many of the validation batches had a finite loss, and how many there were."""
        model.eval()
        losses = []
        with torch.no_grad():
            for _ in range(4):
                image, mask = batch(False)
                losses.append((model(image, mask) - image).abs().mean())
        model.train()
        return sum(bool(torch.isfinite(loss)) for loss in losses), len(losses)

    return Story(model, step_fn, {"optimizer": optimizer, "evaluate": evaluate, "clock": clock})
