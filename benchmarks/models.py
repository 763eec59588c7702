"""Training steps of ordinary size: two convolutional nets, a transformer and an MLP."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Made = tuple[nn.Module, Callable[[], Tensor], torch.optim.Optimizer]


class Block(nn.Module):
    """A residual block of two convolutions with BatchNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.body(x)).relu()


def conv_net() -> tuple[nn.Module, Tensor]:
    """A small residual network on 64 images of 32 by 32."""
    body = [Block(64) for _ in range(4)]
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.MaxPool2d(2),
        *body,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    return model, torch.randn(64, 3, 32, 32)


class Stage(nn.Module):
    """A residual block that halves the image, in the form of ResNet-18."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.shortcut(x) + self.body(x)).relu()


def resnet() -> tuple[nn.Module, Tensor]:
    """ResNet-18 (He et al., 2016): 11 million parameters, 16 images of 96 by 96."""
    parts: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        Block(64),
        Block(64),
    ]
    for inputs, outputs in ((64, 128), (128, 256), (256, 512)):
        parts += [Stage(inputs, outputs), Block(outputs)]
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(*parts), torch.randn(16, 3, 96, 96)


class Transformer(nn.Module):
    """Four encoder layers over 128 tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


def transformer() -> tuple[nn.Module, Tensor]:
    """The transformer with a batch of 16 sequences."""
    return Transformer(), torch.randn(16, 128, 256)


def mlp() -> tuple[nn.Module, Tensor]:
    """Four wide layers and a batch of 256; its step is mostly the update of its weights."""
    layers = [part for _ in range(4) for part in (nn.Linear(1024, 1024), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(1024, 10)), torch.randn(256, 1024)


MODELS = {"conv net": conv_net, "ResNet-18": resnet, "transformer": transformer, "MLP": mlp}


def build(name: str, device: str, fails: bool = False) -> Made:
    """A model with its training step, always from the same bits.

    Args:
        name: a key of `MODELS`.
        device: where to train.
        fails: whether the fourth step overflows in its loss.
    """
    torch.manual_seed(0)
    model, x = MODELS[name]()
    model, x = model.to(device), x.to(device)
    target = torch.arange(len(x), device=device) % 10
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    count = {"steps": 0}

    def step() -> Tensor:
        count["steps"] += 1
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        if fails and count["steps"] == 4:
            loss = (loss * 1e4).exp()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step, optimizer
