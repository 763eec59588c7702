"""A corpus of checkpoints: damaged, hostile, odd and healthy, each with what is true of it.

An expectation is `"healthy"`, `"bad KIND KEY"` (a critical problem of that kind at a key that
ends so), `"odd KIND"` (healthy, with something to say), or `"refused TEXT"`.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import zipfile
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


# -- damaged archives --------------------------------------------------------------------------


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


def flipped_in(member: str) -> bytes:
    """One bit changed in a member's data."""
    content = saved(whole())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next(n for n in archive.namelist() if n.endswith(member))
        return flipped(content, content.index(archive.read(name)) + 2)


def rewritten(change: Callable[[str, bytes], bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """The archive of a healthy checkpoint with its members changed."""
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"w": torch.ones(100)}))) as source,
        zipfile.ZipFile(made, "w", method) as target,
    ):
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return made.getvalue()


def big_endian() -> bytes:
    def swap(name: str, data: bytes) -> bytes:
        if name.endswith("byteorder"):
            return b"big"
        if name.endswith("data/0"):
            return np.frombuffer(data, "<f4").astype(">f4").tobytes()
        return data

    return rewritten(swap)


def plain_zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return made.getvalue()


def script() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            archive.writestr(f"net/{name}", b"\x80\x02N.")
    return made.getvalue()


raw("refused truncated", "half_a_file", lambda: saved(whole())[:4000], "x.pt")
raw("refused truncated", "end_cut_off", lambda: saved(whole())[:-40], "x.pt")
raw("refused empty", "empty", b"", "x.pt")
raw("bad checksum ", "flipped_in_the_data", lambda: flipped_in("data/3"), "x.pt")
raw("bad checksum ", "flipped_in_the_serial_number", lambda: flipped_in("serialization_id"), "x.pt")
raw("refused", "flipped_in_the_header", lambda: flipped(saved(whole()), 1), "x.pt")
raw("refused compressed", "compressed", lambda: rewritten(lambda _, d: d, 8), "x.pt")
raw(
    "refused beyond the bytes",
    "data_too_short",
    lambda: rewritten(lambda n, d: d[:40] if n.endswith("data/0") else d),
    "x.pt",
)
raw(
    "refused cannot be read",
    "no_program",
    lambda: rewritten(lambda n, d: b"" if n.endswith(".pkl") else d),
    "x.pt",
)
raw("healthy", "big_endian", big_endian, "x.pt")
raw("refused", "another_zip", plain_zip, "x.pt")
raw("refused TorchScript", "script", script, "x.pt")
raw("refused", "legacy_truncated", lambda: saved(whole(), legacy=True)[:3000], "x.pt")


# -- what is no checkpoint ---------------------------------------------------------------------

raw("refused begins with", "text", b"hello, world, this is a text", "x.pt")
raw("refused begins with", "random", bytes(range(200, 256)) * 9, "x.bin")
raw("refused web page", "web_page", b"<!DOCTYPE html><html>404</html>", "x.pth")
raw("refused Git LFS", "lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "x.pt")
raw("refused gzip", "gzipped", lambda: gzip.compress(saved(whole())), "x.pth")
raw("refused HDF5", "hdf5", b"\x89HDF\r\n\x1a\n" + bytes(99), "x.ckpt")
raw("refused NumPy", "numpy_file", b"\x93NUMPY\x01\x00" + bytes(99), "x.pt")
raw("refused GGUF", "gguf", b"GGUF\x03\x00\x00\x00" + bytes(99), "x.bin")


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


# -- safetensors -------------------------------------------------------------------------------


def model_state(**changes: Any) -> dict[str, torch.Tensor]:
    return {**whole()["model"], **changes}


def header(**entries: Any) -> bytes:
    return files.header_bytes(entries)


def of(dtype: str, shape: Any, first: Any, last: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def plain(state: Callable[[], dict[str, torch.Tensor]]) -> Callable[[], bytes]:
    return lambda: files.safetensors_bytes(state(), {"format": "pt"})


ST = "x.safetensors"
raw("healthy", "st_healthy", plain(model_state), ST)
raw("healthy", "st_renamed", plain(model_state), "x.pth")
raw("healthy", "st_nothing", lambda: header(), ST)
raw("bad not_finite w", "st_nan", plain(lambda: model_state(w=torch.tensor([1.0, NAN]))), ST)
raw("bad not_finite w", "st_float8", plain(lambda: {"w": float8(NAN)}), ST)
raw("bad not_finite w", "st_bfloat16", plain(lambda: {"w": torch.tensor([INF]).bfloat16()}), ST)
raw("healthy", "st_bool", plain(lambda: {"w": torch.ones(3).bool(), "e": torch.ones(0, 2)}), ST)
raw("refused beyond the end", "st_truncated", lambda: plain(model_state)()[:-5], ST)
raw("refused header", "st_header_cut", lambda: plain(model_state)()[:30], ST)
raw("refused header", "st_five_bytes", b"\x10\x00\x00\x00\x00", ST)
raw("refused header", "st_endless_header", struct.pack("<Q", 1 << 62) + b"{}" * 20, ST)
raw("refused JSON", "st_no_json", struct.pack("<Q", 8) + b'{"a": 1,', ST)
raw("refused JSON", "st_a_list", struct.pack("<Q", 8) + b"[1, 2]  ", ST)
raw("refused JSON", "st_deep_json", struct.pack("<Q", 200_000) + b'{"a":' * 40_000, ST)
raw("refused twice", "st_a_name_twice", struct.pack("<Q", 16) + b'{"a":{}, "a":{}}', ST)
raw("refused overlap", "st_hole", lambda: header(w=of("F32", [1], 4, 8)) + bytes(8), ST)
raw(
    "refused overlap",
    "st_overlap",
    lambda: header(a=of("F32", [2], 0, 8), b=of("F32", [2], 4, 12)) + bytes(12),
    ST,
)
raw("refused belong", "st_more_bytes", lambda: header(w=of("F32", [1], 0, 4)) + bytes(9), ST)
raw("refused is not", "st_wrong_shape", lambda: header(w=of("F32", [3], 0, 4)) + bytes(4), ST)
raw("refused wrong", "st_negative", lambda: header(w=of("F32", [-1], 0, 4)) + bytes(4), ST)
raw("refused wrong", "st_no_numbers", lambda: header(w=of("F32", "x", None, 4)) + bytes(4), ST)
raw("healthy", "st_unknown_dtype", lambda: header(w=of("F4", [8], 0, 4)) + bytes(4), ST)


# -- folders -----------------------------------------------------------------------------------


@case("healthy")
def sharded(folder: Path) -> Path:
    return files.sharded(folder / "hf", model_state())


@case("bad not_finite head.weight")
def sharded_nan(folder: Path) -> Path:
    return files.sharded(folder / "hf", poisoned("model", "head.weight", 1, NAN)["model"])


@case("bad file_missing ")
def sharded_missing(folder: Path) -> Path:
    sharded(folder)
    (folder / "hf" / "model-00002-of-00003.safetensors").unlink()
    return folder / "hf"


@case("bad file_missing ")
def sharded_missing_without_index(folder: Path) -> Path:
    sharded_missing(folder)
    (folder / "hf" / "model.safetensors.index.json").unlink()
    return folder / "hf"


@case("bad file_damaged ")
def sharded_truncated(folder: Path) -> Path:
    sharded(folder)
    shard = folder / "hf" / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-3])
    return folder / "hf"


@case("bad file_damaged ")
def sharded_by_another_index(folder: Path) -> Path:
    sharded(folder)
    index = folder / "hf" / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    data["weight_map"]["other.weight"] = "model-00001-of-00003.safetensors"
    index.write_text(json.dumps(data))
    return folder / "hf"


@case("bad file_damaged ")
def sharded_hostile(folder: Path) -> Path:
    sharded(folder)
    torch_file(folder / "hf" / "model-00002-of-00003.safetensors", {"x": HOSTILE["system"]()})
    return folder / "hf"


@case("odd file_refused")
def trainer_folder(folder: Path) -> Path:
    files.sharded(folder / "hf", model_state(), shards=1)
    torch_file(folder / "hf" / "optimizer.pt", whole()["optimizer"])
    torch_file(folder / "hf" / "training_args.bin", argparse.Namespace(lr=1))
    (folder / "hf" / "vocabulary.bin").write_bytes(b"a few words")
    return folder / "hf"


@case("refused weight_map")
def sharded_broken_index(folder: Path) -> Path:
    sharded(folder)
    (folder / "hf" / "model.safetensors.index.json").write_text("[1, 2")
    return folder / "hf"


@case("refused outside")
def sharded_pointing_outside(folder: Path) -> Path:
    sharded(folder)
    index = {"weight_map": {"w": "../secret.safetensors"}}
    (folder / "hf" / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder / "hf"


@case("refused no checkpoint")
def empty_folder(folder: Path) -> Path:
    (folder / "nothing").mkdir(parents=True)
    return folder / "nothing"


@case("healthy")
def dcp(folder: Path) -> Path:
    return files.distributed(folder / "dcp", whole())


@case("bad not_finite body.1.running_mean")
def dcp_inf(folder: Path) -> Path:
    return files.distributed(folder / "dcp", poisoned("model", "body.1.running_mean", 0, INF))


@case("bad loss_scale scaler.scale")
def dcp_scale(folder: Path) -> Path:
    return files.distributed(folder / "dcp", poisoned("scaler", "scale", None, 0.0))


@case("bad file_missing ")
def dcp_missing(folder: Path) -> Path:
    dcp(folder)
    (folder / "dcp" / "__0_0.distcp").unlink()
    return folder / "dcp"


@case("bad file_damaged ")
def dcp_truncated(folder: Path) -> Path:
    file = dcp(folder) / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:30_000])
    return folder / "dcp"


@case("refused damaged")
def dcp_broken_index(folder: Path) -> Path:
    file = dcp(folder) / ".metadata"
    file.write_bytes(file.read_bytes()[:100])
    return folder / "dcp"


@case("refused executed")
def dcp_hostile_index(folder: Path) -> Path:
    (dcp(folder) / ".metadata").write_bytes(pickle.dumps(HOSTILE["system"]()))
    return folder / "dcp"


@case("bad file_damaged ")
def dcp_hostile_item(folder: Path) -> Path:
    return files.distributed(folder / "dcp", {"w": torch.ones(2), "x": HOSTILE["system"]()})


@case("refused outside")
def dcp_pointing_outside(folder: Path) -> Path:
    file = dcp(folder) / ".metadata"
    moved = file.read_bytes().replace(b"__0_0.distcp", b"../../secret")
    file.write_bytes(moved)
    return folder / "dcp"
