"""Reading tensors through once, in pieces: counts, extremes, places and checksums.

One pass of `aminmax` per piece says everything about healthy data: it is NaN or infinite
exactly where an element is. Pieces of two megabytes stay in the processor's cache, are read with
`readinto` (a memory map would end the process when somebody shortens the file meanwhile), and
bound the memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import threading
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import torch
from torch import Tensor

from nanhunt.checkpoints.formats.contents import Entry, Span, ZipMember
from nanhunt.core.tensors.dtypes import PACKED, real_part
from nanhunt.core.tensors.stats import real_values
from nanhunt.errors import CheckpointError

# Bytes. Measured on two cores: torch's own threads make smaller pieces slower (12 GB/s at
# 1 MiB, 16 at 2 MiB), larger ones leave the cache.
PIECE = 1 << 21
_THREADS = 2
_PLACES = 3
Place = tuple[int, ...]


@dataclasses.dataclass
class Scan:
    """What was counted in the values of one tensor.

    Attributes:
        nan, posinf, neginf: elements of each kind; complex elements count for each bad part.
        places: positions of the first bad elements in memory order, in elements.
        low, high: smallest and largest finite value; None when there is none, or for dtypes
            that are not looked at.
    """

    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    places: list[int] = dataclasses.field(default_factory=list)
    low: float | None = None
    high: float | None = None

    @property
    def bad(self) -> int:
        """Number of elements that are not finite."""
        return self.nan + self.posinf + self.neginf

    @property
    def absmax(self) -> float:
        """Largest finite magnitude, 0 when there is none."""
        return max(abs(self.low or 0.0), abs(self.high or 0.0))

    def add(self, values: Tensor, start: int, width: int = 1) -> None:
        """Takes in a flat piece of real values; `width` of them make an element."""
        if not values.numel():
            return
        low, high = (bound.item() for bound in torch.aminmax(values))
        if not (math.isfinite(low) and math.isfinite(high)):
            self._count(values, start, width)
            values = values[torch.isfinite(values)]
            if not values.numel():
                return
            low, high = (bound.item() for bound in torch.aminmax(values))
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)

    def _count(self, values: Tensor, start: int, width: int) -> None:
        self.nan += int(torch.isnan(values).sum())
        self.posinf += int((values == math.inf).sum())
        self.neginf += int((values == -math.inf).sum())
        room = _PLACES - len(self.places)
        if room > 0:
            bad = torch.nonzero(~torch.isfinite(values)).flatten()[: room * width].tolist()
            self.places += list(dict.fromkeys((start + place) // width for place in bad))[:room]


def scan_all(entries: list[Entry]) -> tuple[list[Scan], dict[ZipMember, int]]:
    """Looks at every tensor; those that share their bytes are read once.

    Returns:
        One `Scan` per entry, and the CRC-32 of every zip member that is one tensor.
    """
    checksums: dict[ZipMember, int] = {}
    alike: dict[object, Scan] = {}
    work: list[tuple[Entry, Scan]] = []
    scans = []
    for entry in entries:
        place = (entry.span, entry.dtype, entry.shape, entry.stride)
        same = place if entry.span else id(entry.tensor)
        if same not in alike:
            alike[same] = Scan()
            work.append((entry, alike[same]))
        scans.append(alike[same])
    work.sort(key=lambda item: _place_on_disk(item[0]))
    with contextlib.closing(_Pool()) as pool:

        def look(item: tuple[Entry, Scan]) -> None:
            entry, scan = item
            crc = _scan(entry, scan, pool)
            if crc is not None and entry.record is not None:
                checksums[entry.record] = crc

        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
            for _ in threads.map(look, work):
                pass
    return scans, checksums


def _place_on_disk(entry: Entry) -> tuple[str, int]:
    return (str(entry.span.file), entry.span.start) if entry.span else ("", 0)


def checksums_of(records: Iterable[ZipMember]) -> dict[ZipMember, int]:
    """The CRC-32 of zip members, read in pieces."""
    found = {}
    with contextlib.closing(_Pool()) as pool:
        for record in records:
            crc = 0
            for piece in pool.pieces(record.span, PIECE):
                crc = zlib.crc32(piece, crc)
            found[record] = crc
    return found


class _Pool:
    """One open file and one buffer for each thread."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._open: dict[int, BinaryIO] = {}

    def pieces(self, span: Span, size: int) -> Iterable[memoryview]:
        """Reads a range in pieces; each is overwritten by the next one.

        Raises:
            CheckpointError: the file ends before the range does.
        """
        own = self._own
        if getattr(own, "file", None) != span.file:
            if getattr(own, "file", None) is not None:
                own.stream.close()
            own.stream = open(span.file, "rb", buffering=0)  # noqa: SIM115  see close
            own.file = span.file
            self._open[threading.get_ident()] = own.stream
        if getattr(own, "buffer", None) is None:
            own.buffer = bytearray(PIECE)
        stream, left = own.stream, span.nbytes
        stream.seek(span.start)
        while left > 0:
            view = memoryview(own.buffer)[: min(size, left)]
            got = 0
            while got < len(view):
                more = stream.readinto(view[got:])
                if not more:
                    raise CheckpointError(
                        f"{span.file}: the file became shorter while it was read; wait until it "
                        "is written, and try again"
                    )
                got += more
            yield view
            left -= len(view)

    def close(self) -> None:
        """Closes every file."""
        for stream in self._open.values():
            stream.close()


def real_dtype(entry: Entry) -> torch.dtype | None:
    """The dtype of the numbers that the bytes hold; None for what is not looked at."""
    dtype = real_part(entry.dtype) if entry.dtype else None
    if dtype is None or not dtype.is_floating_point or dtype in PACKED:
        return None
    return dtype


def _scan(entry: Entry, scan: Scan, pool: _Pool) -> int | None:
    """Fills a scan; returns the checksum of the zip member if all of it was read."""
    if entry.tensor is not None:
        values = real_values(entry.tensor)
        if values is not None:
            scan.add(values.reshape(-1), 0, 2 if entry.tensor.is_complex() else 1)
        if entry.tensor.layout != torch.strided:
            scan.places = []  # positions among the stored values are no places in the tensor
        return None
    span, dtype = entry.span, real_dtype(entry)
    if span is None:
        return None
    whole = entry.record is not None and entry.record.crc is not None and entry.record.span == span
    if dtype is None and not whole:
        return None
    width = 2 if entry.dtype is not None and entry.dtype.is_complex else 1
    if dtype is not None and has_gaps(entry):
        scan.add(read_values(entry).reshape(-1), 0, width)
        return None
    crc = start = 0
    for piece in pool.pieces(span, PIECE):
        if dtype is not None:
            values = torch.frombuffer(piece, dtype=dtype)
            if dtype.itemsize == 1:
                values = values.to(torch.float32)
            scan.add(values, start, width)
            start += values.numel()
        if whole:
            crc = zlib.crc32(piece, crc)
    return crc if whole else None


def in_place(entry: Entry) -> bool:
    """Whether its bytes in the file are its elements and nothing else: it can be repaired there."""
    if entry.span is None or entry.dtype is None or has_gaps(entry):
        return False
    return entry.span.nbytes == entry.numel * entry.dtype.itemsize


def has_gaps(entry: Entry) -> bool:
    """Whether there are foreign elements between its own, as in a slice of a larger tensor."""
    if entry.span is None or entry.dtype is None:
        return False
    return entry.span.nbytes > entry.numel * entry.dtype.itemsize


def read_values(entry: Entry) -> Tensor:
    """The values of one tensor, real numbers with complex ones as pairs in a last dimension.

    For an expanded tensor, whose elements share memory, the memory is returned flat.
    """
    if entry.tensor is not None:
        values = real_values(entry.tensor)
        return torch.empty(0) if values is None else values
    assert entry.span is not None
    assert entry.dtype is not None
    raw = bytearray(entry.span.read())
    if not raw:
        return torch.empty(entry.shape)
    values = torch.frombuffer(raw, dtype=real_part(entry.dtype))
    if entry.dtype.itemsize == 1 and entry.dtype.is_floating_point:
        values = values.to(torch.float32)
    if entry.dtype.is_complex:
        values = values.view(-1, 2)
    if values.shape[0] < entry.numel:
        return values
    inner = values.stride()[1:]
    step = values.stride(0)
    stride = (*(step * n for n in entry.stride), *inner)
    return values.as_strided((*entry.shape, *values.shape[1:]), stride)


def index_of(entry: Entry, place: int) -> Place:
    """The index of the element at a position in memory order."""
    if entry.tensor is not None or has_gaps(entry) or entry.contiguous:
        return _unravel(place, entry.shape)
    axes = sorted(range(len(entry.shape)), key=lambda axis: -entry.stride[axis])
    index = [0] * len(entry.shape)
    for axis in axes:
        if entry.stride[axis] and entry.shape[axis] > 1:
            index[axis] = place // entry.stride[axis] % entry.shape[axis]
    return tuple(index)


def _unravel(place: int, shape: tuple[int, ...]) -> Place:
    index = []
    for size in reversed(shape):
        index.append(place % size if size else 0)
        place //= max(size, 1)
    return tuple(reversed(index))
