"""The rest of the corpus: damaged archives, safetensors files and folders."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.doctor import files
from tests.doctor.damaged import HOSTILE, INF, NAN, case, float8, poisoned, raw, saved
from tests.doctor.files import torch_file, whole

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


def misplaced_directory() -> bytes:
    """The archive says that its directory begins 50 bytes later, and so its member before 0."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("x/byteorder", "little")
    content = bytearray(made.getvalue())
    place = content.rindex(b"PK\x05\x06") + 16
    (start,) = struct.unpack_from("<I", content, place)
    struct.pack_into("<I", content, place, start + 50)
    return bytes(content)


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
raw("refused truncated or damaged", "misplaced_directory", misplaced_directory, "x.pt")
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
