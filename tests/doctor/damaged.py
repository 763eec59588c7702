"""A corpus of checkpoints: damaged, hostile, odd and healthy, each with what is true of it.

An expectation is `"healthy"`, `"bad KIND KEY"` (a critical problem of that kind at a key that
ends so), `"odd KIND"` (healthy, with something to say), or `"refused TEXT"`.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.doctor import files
from tests.doctor.files import torch_file, whole

CANARY = "NANHUNT_CANARY"  # a hostile file writes here if anything of it is executed
INF, NAN = float("inf"), float("nan")
Make = Callable[[Path], Path]
CORPUS: dict[str, tuple[Make, str]] = {}


def case(expected: str, name: str = "") -> Callable[[Make], Make]:
    def add(make: Make) -> Make:
        key = name or make.__name__
        assert key not in CORPUS, key
        CORPUS[key] = (make, expected)
        return make

    return add


def poisoned(*where: Any) -> dict[str, Any]:
    """A whole checkpoint with one value changed: the way there, and the value."""
    tree = whole()
    *keys, last, index, value = where
    inner = tree
    for key in keys:
        inner = inner[key]
    if index is None:
        inner[last] = value
    else:
        inner[last].view(-1)[index] = value
    return tree


POISONED = {
    "weight_nan": ("bad not_finite head.weight", ("model", "head.weight", 2, NAN)),
    "weight_inf": ("bad not_finite body.0.weight", ("model", "body.0.weight", 0, INF)),
    "bias_minus_inf": ("bad not_finite head.bias", ("model", "head.bias", 1, -INF)),
    "mean_inf": ("bad not_finite body.1.running_mean", ("model", "body.1.running_mean", 3, INF)),
    "variance_nan": ("bad not_finite body.4.running_var", ("model", "body.4.running_var", 0, NAN)),
    "variance_negative": (
        "bad variance_negative body.4.running_var",
        ("model", "body.4.running_var", 0, -0.1),
    ),
    "variance_zero": ("odd variance_zero", ("model", "body.4.running_var", 0, 0.0)),
    "count_negative": ("odd batch_count", ("model", "body.4.num_batches_tracked", 0, -1)),
    "beyond_half": ("odd beyond_dtype", ("model", "head.weight", 0, 1e6)),
    "moment_nan": ("bad not_finite state.0.exp_avg", ("optimizer", "state", 0, "exp_avg", 0, NAN)),
    "second_moment_inf": (
        "bad not_finite state.1.exp_avg_sq",
        ("optimizer", "state", 1, "exp_avg_sq", 0, INF),
    ),
    "second_moment_negative": (
        "bad second_moment_negative state.1.exp_avg_sq",
        ("optimizer", "state", 1, "exp_avg_sq", 0, -1e-9),
    ),
    "step_nan": ("bad not_finite state.2.step", ("optimizer", "state", 2, "step", 0, NAN)),
    "step_negative": (
        "bad optimizer_step state.2.step",
        ("optimizer", "state", 2, "step", 0, -1),
    ),
    "learning_rate_nan": (
        "bad optimizer_setting param_groups.0.lr",
        ("optimizer", "param_groups", 0, "lr", None, NAN),
    ),
    "scale_zero": ("bad loss_scale scaler.scale", ("scaler", "scale", None, 0.0)),
    "scale_inf": ("bad loss_scale scaler.scale", ("scaler", "scale", None, INF)),
    "scale_nan": ("bad loss_scale scaler.scale", ("scaler", "scale", None, NAN)),
    "scale_collapsed": ("odd loss_scale", ("scaler", "scale", None, 2.0**-20)),
}
for _name, (_expected, _where) in POISONED.items():
    case(_expected, _name)(lambda folder, w=_where: torch_file(folder / "x.pt", poisoned(*w)))


def tree(expected: str, name: str, value: Callable[[], Any], file: str = "x.pth") -> None:
    """A case that is one `torch.save` of what a function makes."""
    case(expected, name)(lambda folder: torch_file(folder / file, value()))


def raw(expected: str, name: str, content: Callable[[], bytes] | bytes, file: str) -> None:
    """A case that is a file of these bytes."""

    def make(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content if isinstance(content, bytes) else content())
        return folder / file

    case(expected, name)(make)


def saved(value: Any, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


# -- healthy and odd trees ---------------------------------------------------------------------


def recursive() -> dict[str, Any]:
    inner: dict[str, Any] = {"w": torch.tensor([1.0, NAN])}
    inner["self"] = inner
    inner["list"] = [inner]
    return inner


def doubled(times: int = 60) -> Any:
    """2 to the 60th tensors for whoever follows every reference."""
    value: Any = [torch.ones(1)]
    for _ in range(times):
        value = [value, value]
    return value


def deep(levels: int = 150) -> Any:
    value: Any = torch.ones(1)
    for _ in range(levels):
        value = [value]
    return {"deep": value, "w": torch.ones(2)}


def tied() -> dict[str, torch.Tensor]:
    weight = torch.ones(4, 4)
    return {"embedding": weight, "head": weight, "rows": weight[1:3], "column": weight[:, 1]}


def with_foreign_neighbours() -> dict[str, torch.Tensor]:
    big = torch.full((4, 4), NAN)
    big[:, :2] = 1.0
    return {"slice": big[:, :2]}


def channels_last() -> dict[str, torch.Tensor]:
    value = torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)
    value[1, 2, 3, 4] = NAN
    return {"w": value}


def nested_tensor() -> dict[str, torch.Tensor]:
    return {"n": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}


def float8(value: float) -> torch.Tensor:
    return torch.tensor([1.0, value]).to(torch.float8_e4m3fn)


tree("healthy", "healthy", whole)
tree("healthy", "healthy_lightning", lambda: {"state_dict": whole()["model"]}, "x.ckpt")
tree("healthy", "renamed_torch_file", whole, "x.safetensors")
tree("healthy", "a_single_tensor", lambda: torch.ones(3))
tree("bad not_finite ", "a_single_bad_tensor", lambda: torch.tensor([NAN]))
tree("healthy", "no_tensor", lambda: {"epoch": 3, "best": INF, "huge": 10**400})
tree("healthy", "odd_keys", lambda: {0: [torch.ones(1), (torch.ones(2),)], None: {1.5: "x"}})
tree("bad not_finite w", "recursive", recursive)
tree("healthy", "deeply_nested", deep)
tree("healthy", "doubled_60_times", doubled)
tree("healthy", "ten_thousand", lambda: {f"w{n}": torch.ones(1) for n in range(10_000)})
tree("healthy", "zero_size", lambda: {"a": torch.ones(0, 3), "b": torch.ones(()), "c": None})
tree("healthy", "tied", tied)
tree("healthy", "with_foreign_neighbours", with_foreign_neighbours)
tree("healthy", "expanded_to_terabytes", lambda: {"w": torch.ones(1).expand(1 << 40)})
tree("bad not_finite w", "channels_last", channels_last)
tree("bad not_finite w", "transposed", lambda: {"w": torch.tensor([[1.0, NAN, 1.0]]).t()})
tree("odd complex_half", "complex32", lambda: {"w": torch.ones(3, dtype=torch.complex32)})
tree("bad not_finite w", "complex32_nan", lambda: {"w": torch.tensor([NAN]).to(torch.complex32)})
tree("bad not_finite w", "complex64_inf", lambda: {"w": torch.tensor([complex(1, INF)])})
tree("bad not_finite w", "float8_nan", lambda: {"w": float8(NAN)})
tree("healthy", "float8", lambda: {"w": float8(2.0)})
tree("bad not_finite w", "bfloat16_inf", lambda: {"w": torch.tensor([INF]).bfloat16()})
tree("bad not_finite w", "float16_inf", lambda: {"w": torch.tensor([7e4]).half()})
tree(
    "odd beyond_dtype", "float64_beyond", lambda: {"w": torch.tensor([1e300], dtype=torch.float64)}
)
tree("healthy", "integers", lambda: {"a": torch.arange(3), "b": torch.ones(2).bool()})
tree("healthy", "parameters", lambda: {"w": nn.Parameter(torch.ones(3))})
tree("healthy", "meta", lambda: {"w": torch.ones(3, device="meta")})
tree("bad not_finite w", "sparse", lambda: {"w": torch.tensor([[0, NAN]]).to_sparse()})
tree("healthy", "nested_tensor", nested_tensor)
tree("odd mask", "mask", lambda: {"m": nn.Transformer.generate_square_subsequent_mask(4)})
tree(
    "healthy",
    "quantized",
    lambda: {"q": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)},
)
tree(
    "odd statistics_in_half",
    "half_statistics",
    lambda: nn.BatchNorm1d(3).half().state_dict(),
)
tree(
    "odd scale_outlier",
    "outlier",
    lambda: {f"layers.{n}.w": torch.full((2, 2), 100.0 if n == 2 else 1.0) for n in range(6)},
)
raw("healthy", "legacy", lambda: saved(whole(), legacy=True), "x.pth")
raw(
    "bad not_finite head.weight",
    "legacy_nan",
    lambda: saved(poisoned("model", "head.weight", 0, NAN), legacy=True),
    "x.pth",
)


# -- hostile -----------------------------------------------------------------------------------


def canary() -> str:
    return os.environ[CANARY]


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Restores:
    """Pickles as an object whose `__setstate__` writes the canary."""

    def __getstate__(self) -> dict[str, str]:
        return {"canary": canary()}

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["canary"]).touch()


HOSTILE: dict[str, Callable[[], Any]] = {
    "system": lambda: Calls(os.system, f"touch {canary()}"),
    "popen": lambda: Calls(subprocess.Popen, ["touch", canary()]),
    "eval": lambda: Calls(eval, f"open({canary()!r}, 'w').close()"),
    "open": lambda: Calls(open, canary(), "w"),
    "setstate": Restores,
    "torch_load": lambda: Calls(torch.load, canary()),
    "getattr": lambda: Calls(getattr, "x", "upper"),
}
for _name, _make in HOSTILE.items():
    tree("refused executed", f"hostile_{_name}", lambda m=_make: {"w": torch.ones(2), "x": m()})
    raw(
        "refused executed",
        f"hostile_legacy_{_name}",
        lambda m=_make: saved({"x": m()}, legacy=True),
        "x.pt",
    )
raw("refused", "hostile_pickle", lambda: pickle.dumps(HOSTILE["system"]()), "x.pt")
tree("refused executed", "whole_model", lambda: files.Net())
tree("refused executed", "namespace", lambda: {"hparams": argparse.Namespace(lr=1)}, "x.ckpt")
tree("refused executed", "numpy_scalar", lambda: {"best": np.float64(1.0), "w": torch.ones(1)})
tree("refused", "memory_bomb", lambda: {"x": Calls(bytearray, 1 << 60)})
