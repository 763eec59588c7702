"""Files of the safetensors format: the header as data, tensors as ranges of bytes.

Format: https://github.com/huggingface/safetensors#format. Eight bytes with the length of the
header (little-endian, at most 100 MB), a JSON object, the data without holes. Reading it
needs no package.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import torch

from nanhunt.checkpoints.formats.contents import Contents, Entry, Span, row_major
from nanhunt.checkpoints.formats.format import Format
from nanhunt.errors import CheckpointError

_LONGEST_HEADER = 100_000_000  # the limit of the reference implementation

# Names of the format; dtypes that this torch lacks are None and are not looked at.
_DTYPES: dict[str, torch.dtype | None] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": getattr(torch, "float8_e8m0fnu", None),
}


def read(path: Path) -> Contents:
    """Reads the header and checks it against the file.

    Raises:
        CheckpointError: the file is truncated or its header is wrong.
    """
    header, start = _header(path)
    end = path.stat().st_size
    contents = Contents(path, "safetensors", files=[path])
    ranges = []
    for name, about in header.items():
        if name == "__metadata__":
            continue
        entry = _entry(path, name, about, start, end)
        contents.entries.append(entry)
        if entry.span is not None:
            ranges.append((entry.span.start, entry.span.start + entry.span.nbytes))
    _check_layout(path, sorted(ranges), start, end)
    return contents


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {what}: the file is truncated or damaged; take an earlier one")


def _header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as stream:
        first = stream.read(8)
        if len(first) < 8:
            raise _damaged(path, "shorter than a safetensors header")
        (length,) = struct.unpack("<Q", first)
        if length > min(_LONGEST_HEADER, path.stat().st_size - 8):
            raise _damaged(path, f"its safetensors header would have {length:,} bytes")
        raw = stream.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_repetition)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its safetensors header is no JSON ({error})") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its safetensors header is no JSON object")
    return header, 8 + length


def _no_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name stands in it twice")
    return names


def _entry(path: Path, name: str, about: Any, start: int, end: int) -> Entry:
    try:
        kind, shape = about["dtype"], tuple(about["shape"])
        first, last = about["data_offsets"]
        numbers = (*shape, first, last)
        whole = all(type(n) is int and n >= 0 for n in numbers) and isinstance(kind, str)
    except (TypeError, KeyError, ValueError):
        whole = False
    if not whole or first > last:
        raise _damaged(path, f"the header's entry for {name[:100]} is wrong")
    if start + last > end:
        raise _damaged(path, f"{name[:100]} lies beyond the end of the file")
    dtype = _DTYPES.get(kind)
    span = Span(path, start + first, last - first)
    if dtype is None:
        return Entry((name,), None, shape, span=span, note=f"dtype {kind[:30]} is not known here")
    if math.prod(shape) * dtype.itemsize != span.nbytes:
        raise _damaged(path, f"{name[:100]}: {list(shape)} {kind} is not {span.nbytes:,} bytes")
    return Entry((name,), dtype, shape, row_major(shape), span)


def _check_layout(path: Path, ranges: list[tuple[int, int]], start: int, end: int) -> None:
    """The format allows neither holes nor overlaps nor bytes at the end."""
    place = start
    for first, last in ranges:
        if first != place:
            raise _damaged(path, "its tensors overlap or leave holes")
        place = last
    if place != end:
        raise _damaged(path, f"{end - place:,} bytes at its end belong to no tensor")


FORMAT = Format(
    (".safetensors",),
    lambda head, size: head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size,
    read,
)
