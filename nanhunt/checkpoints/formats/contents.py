"""What a checkpoint holds, format by format alike: tensors as ranges of bytes, numbers, checksums.

A tensor is described by where its bytes lie in which file, so that it can be read in pieces
and repaired in place; only what no format stores plainly is held in memory.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Keys = tuple[str, ...]

# Deeper nesting is no state dict; it is how a hostile file makes paths of quadratic size.
DEPTH = 100


@dataclasses.dataclass(frozen=True)
class Span:
    """A range of bytes of a file."""

    file: Path
    start: int
    nbytes: int

    def read(self) -> bytes:
        """Returns the bytes; fewer than `nbytes` when the file ends before."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.nbytes)


@dataclasses.dataclass(frozen=True)
class ZipMember:
    """A member of a zip archive that is stored as it is.

    Attributes:
        name: its name in the archive.
        span: its bytes.
        crc: CRC-32 that the archive states; None where it was saved without checksums.
        archive: the bytes of the whole archive.
    """

    name: str
    span: Span
    crc: int | None
    archive: Span


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor.

    Attributes:
        keys: the way to it from the root of the file.
        dtype: its dtype; None for one that torch does not have.
        shape, stride: in elements.
        span: the bytes from its first element to its last; None when `tensor` is given.
        record: the zip member that holds them, if it is one.
        tensor: the tensor itself, where it is not stored as plain bytes (sparse, quantized).
        note: why its values cannot be looked at, or an empty string.
        whole: the shape of the tensor of which this is a shard; None when it is no shard.
    """

    keys: Keys
    dtype: torch.dtype | None
    shape: tuple[int, ...]
    stride: tuple[int, ...] = ()
    span: Span | None = None
    record: ZipMember | None = None
    tensor: Tensor | None = None
    note: str = ""
    whole: tuple[int, ...] | None = None

    @property
    def key(self) -> str:
        """The way to it, with dots."""
        return ".".join(self.keys)

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie one after another in row-major order."""
        return self.stride == row_major(self.shape) or self.numel <= 1


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A plain number in a checkpoint.

    Attributes:
        keys: the way to it from the root of the file.
        value: the number.
        pickle: the pickled stream that holds it, if it is stored as it is.
        record: the zip member which that stream is.
    """

    keys: Keys
    value: float
    pickle: Span | None = None
    record: ZipMember | None = None

    @property
    def key(self) -> str:
        """The way to it, with dots."""
        return ".".join(self.keys)


@dataclasses.dataclass
class Contents:
    """Everything in one checkpoint, file or folder.

    Attributes:
        path: the file or folder.
        layout: the format in words.
        files: the files that hold tensors.
        records: members of zip archives, for their checksums.
        missing: files that an index names and that are not there.
        damage: what is wrong with the whole, each a sentence.
        refused: files beside others that would need code to be run, each with the reason.
    """

    path: Path
    layout: str
    entries: list[Entry] = dataclasses.field(default_factory=list)
    scalars: list[Scalar] = dataclasses.field(default_factory=list)
    files: list[Path] = dataclasses.field(default_factory=list)
    records: list[ZipMember] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    damage: list[str] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def file_of(self, span: Span | None) -> str:
        """The name of a file within the folder; empty when the path is one file."""
        if span is None or not self.path.is_dir():
            return ""
        return str(span.file.relative_to(self.path))

    def extend(self, other: Contents) -> None:
        """Takes over what another one holds."""
        self.entries += other.entries
        self.scalars += other.scalars
        self.files += other.files
        self.records += other.records
        self.missing += other.missing
        self.damage += other.damage
        self.refused += other.refused
        self.notes += other.notes


class Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, span: Span) -> None:
        self._stream = span.file.open("rb")
        self._start, self._length, self._place = span.start, span.nbytes, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves within the part."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        """Where it stands."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Reads at most up to the end of the part."""
        room = max(0, min(len(buffer), self._length - self._place))
        self._stream.seek(self._start + self._place)
        got = self._stream.readinto(memoryview(buffer)[:room])
        self._place += got
        return got

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()
        super().close()


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous tensor; torch gives empty dimensions the stride of length 1."""
    stride: list[int] = []
    step = 1
    for size in reversed(shape):
        stride.append(step)
        step *= max(size, 1)
    return tuple(reversed(stride))


def as_float(value: float) -> float:
    """A number of Python's; whole ones have no end, and become infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Elements from the first to the last one in memory, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def leaves(root: object) -> Iterator[tuple[Keys, object]]:
    """Everything in nested dicts, lists and tuples that is none of them, in order.

    A container is visited once, so that one which holds itself comes to an end. One that is
    nested deeper than `DEPTH` comes as it is, unopened.
    """
    # Not `core.tensors.trees`: the file is a stranger's, and recursion would end the process
    # where it is nested deeply, or never where it holds itself.
    seen: set[int] = set()
    stack: list[tuple[Keys, object]] = [((), root)]
    while stack:
        keys, value = stack.pop()
        if not isinstance(value, dict | list | tuple | set | frozenset) or len(keys) >= DEPTH:
            yield keys, value
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        pairs: Iterable[tuple[object, object]]
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        stack += [((*keys, str(key)), item) for key, item in reversed(list(pairs))]
