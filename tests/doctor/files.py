"""Checkpoints for the doctor's tests, in every format."""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SCALER = {
    "scale": 65536.0,
    "growth_factor": 2.0,
    "backoff_factor": 0.5,
    "growth_interval": 2000,
    "_growth_tracker": 7,
}
_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
}


class Net(nn.Module):
    """Two convolutions with BatchNorm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.BatchNorm2d(4),
        )
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def trained(seed: int = 0) -> tuple[Net, torch.optim.Optimizer]:
    """A model and its Adam after three steps."""
    torch.manual_seed(seed)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(8, 1, 5, 5)).square().mean().backward()
        optimizer.step()
    return net, optimizer


def whole() -> dict[str, Any]:
    """A checkpoint of a training run: model, optimizer, scaler, some numbers and names."""
    net, optimizer = trained()
    return {
        "model": {name: value.clone() for name, value in net.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "scaler": dict(SCALER),
        "epoch": 3,
        "best": float("inf"),
        "names": ["a", "b"],
    }


def torch_file(path: Path, tree: Any, legacy: bool = False) -> Path:
    """What `torch.save` writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tree, path, _use_new_zipfile_serialization=not legacy)
    return path


def safetensors_bytes(state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file, written after its description and not by a package."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, value in state.items():
        raw = raw_bytes(value)
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": _NAMES[value.dtype], "shape": list(value.shape)}
        header[name]["data_offsets"] = offsets
        data += raw
    return header_bytes(header) + data


def raw_bytes(value: Tensor) -> bytes:
    if not value.numel():
        return b""
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def header_bytes(header: Any) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def safetensors_file(path: Path, state: dict[str, Tensor], **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes(state, **more))
    return path


def sharded(folder: Path, state: dict[str, Tensor], shards: int = 3) -> Path:
    """A Hugging Face folder: shards and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {}
    for number in range(shards):
        part = dict(list(state.items())[number::shards])
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        safetensors_file(folder / name, part, metadata={"format": "pt"})
        places |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    return folder


def distributed(folder: Path, tree: dict[str, Any]) -> Path:
    """What `torch.distributed.checkpoint.save` writes in a single process."""
    from torch.distributed import checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no process group
        checkpoint.save(tree, checkpoint_id=folder)
    return folder


def everything_in(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of every file in a folder."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files}
