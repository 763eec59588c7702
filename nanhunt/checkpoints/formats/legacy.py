"""Where the tensors lie in a file that `torch.save` wrote before version 1.6.

Such a file is five pickles (a magic number, the version, facts about the machine, the tree, the
names of the storages), then for each storage its length as eight bytes and its data. Format:
`_legacy_save` in `torch/serialization.py`. The pickles are walked opcode by opcode, without
executing any; that the places are right is proven by comparing the bytes there with those that
`torch.load` gave.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from nanhunt.checkpoints.formats.contents import Span

_STRINGS = ("BINUNICODE", "SHORT_BINUNICODE", "UNICODE")


def places(path: Path, tensors: list[Tensor]) -> tuple[Span, dict[int, Span]] | None:
    """Finds every storage in the file.

    Args:
        path: the file.
        tensors: everything that `torch.load` found in it, in the order of the tree.

    Returns:
        The pickled tree, and the bytes of each storage by its `_cdata`; None when they are not
        where they are expected.
    """
    plain = (t.layout == torch.strided and not (t.is_nested or t.is_quantized) for t in tensors)
    if not all(plain):
        return None
    storages = {t.untyped_storage()._cdata: t.untyped_storage() for t in tensors}
    with path.open("rb") as stream:
        try:
            for _ in range(3):
                _strings(stream)
            start = stream.tell()
            words = _strings(stream)
            program = Span(path, start, stream.tell() - start)
            stored = _strings(stream)
        except ValueError:  # what pickletools says to a damaged stream
            return None
        names = set(stored)
        met = list(dict.fromkeys(word for word in words if word in names))
        if len(met) != len(stored) or len(met) != len(storages):
            return None
        by_name = dict(zip(met, storages.items(), strict=True))
        spans = {}
        for name in stored:
            number, storage = by_name[name]
            spans[number] = Span(path, stream.tell() + 8, storage.nbytes())
            if not _same(stream, storage):
                return None
    return program, spans


def _strings(stream: BinaryIO) -> list[str]:
    """The strings in one pickle, in order; leaves the stream behind it."""
    operations = pickletools.genops(stream)
    return [str(argument) for code, argument, _ in operations if code.name in _STRINGS]


def _same(stream: BinaryIO, storage: torch.UntypedStorage) -> bool:
    """Whether the next storage in the file has these bytes."""
    stream.seek(8, 1)
    raw = bytearray(stream.read(storage.nbytes()))
    if len(raw) != storage.nbytes():
        return False
    if not raw:
        return True
    held = torch.empty(0, dtype=torch.uint8).set_(storage)
    return torch.equal(torch.frombuffer(raw, dtype=torch.uint8), held)
