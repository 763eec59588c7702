"""Changes of ranges of bytes: new elements for bad ones, in place."""

from __future__ import annotations

import dataclasses
import struct
from typing import Literal

import torch
from torch import Tensor

from nanhunt.checkpoints.formats.contents import Span, ZipMember
from nanhunt.core.tensors.dtypes import BITS

Condition = Literal["not finite", "not finite or negative"]


@dataclasses.dataclass(frozen=True)
class Patch:
    """A change of one range of bytes.

    Attributes:
        key: whose they are.
        span: the bytes in the original file.
        record: the zip member that holds them, if there is one.
        dtype: of the real numbers in them.
        value: what is written.
        where: the tensors and the conditions at which elements are replaced in all of them
            alike; empty for all elements.
        text: what is done, in a few words.
        values: what is written instead of `value`, element by element.
    """

    key: str
    span: Span
    record: ZipMember | None
    dtype: torch.dtype
    value: float
    where: tuple[tuple[Span, torch.dtype, Condition], ...]
    text: str
    values: Tensor | None = None

    def make(self) -> tuple[bytes, int]:
        """The new bytes, and how many elements are different."""
        raw = bytearray(self.span.read())
        if self.values is not None:
            return _bytes_of(self.values.to(self.dtype)), self.values.numel()
        if not raw:
            return b"", 0
        bits = torch.frombuffer(raw, dtype=BITS[self.dtype.itemsize])
        bad = torch.zeros(bits.shape, dtype=torch.bool)
        for span, dtype, condition in self.where:
            bad |= _bad(torch.frombuffer(bytearray(span.read()), dtype=dtype), condition)
        if not self.where:
            bad[:] = True
        code = torch.tensor([self.value]).to(self.dtype).view(BITS[self.dtype.itemsize])
        bits[bad] = code
        return bytes(raw), int(bad.sum())


@dataclasses.dataclass(frozen=True)
class NumberPatch:
    """A change of one number within a pickled stream: eight bytes, big-endian."""

    key: str
    span: Span
    record: ZipMember | None
    value: float
    text: str

    def make(self) -> tuple[bytes, int]:
        """The new bytes, and that it is one number."""
        return struct.pack(">d", self.value), 1


AnyPatch = Patch | NumberPatch


def _bytes_of(values: Tensor) -> bytes:
    flat = values.detach().cpu().contiguous().flatten()
    return bytes(bytearray(flat.view(torch.uint8).tolist())) if flat.numel() else b""


def _bad(values: Tensor, condition: Condition) -> Tensor:
    if not values.dtype.is_floating_point:
        return values < 0
    values = values.to(torch.float32) if values.dtype.itemsize < 4 else values
    bad = ~torch.isfinite(values)
    return bad | (values < 0) if condition == "not finite or negative" else bad
