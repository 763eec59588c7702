"""Files of `torch.save`: read with `weights_only=True` alone, and without their tensors' data.

Nothing in a file is executed. One that needs more than tensors, numbers, strings and
containers is refused, with the names of what it asks for.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nanhunt.checkpoints.formats import archive
from nanhunt.checkpoints.formats.contents import (
    DEPTH,
    Contents,
    Entry,
    Keys,
    Scalar,
    Span,
    Window,
    ZipMember,
    as_float,
    extent,
    leaves,
)
from nanhunt.checkpoints.formats.format import Format
from nanhunt.errors import CheckpointError, CodeNeededError
from nanhunt.torch_private import checkpoint_offset, is_wrapper

_NAMES_SHOWN = 5


def read_archive(span: Span, prefix: Keys = ()) -> Contents:
    """Reads a zip archive of `torch.save`, or one that lies within a file.

    Args:
        span: the bytes of the archive.
        prefix: what is put before the keys in it.

    Raises:
        CheckpointError: it is damaged, or would need code to be run.
    """
    members = archive.records(span)
    names = {member.name.partition("/")[2] for member in members}
    if "constants.pkl" in names:
        raise CodeNeededError(
            f"{span.file}: a TorchScript program, which is code; save the state_dict() of the "
            "module that torch.jit.load gives, where you trust the file"
        )
    contents = Contents(span.file, "torch.save", files=[span.file], records=members)
    starts = {member.span.start: member for member in members if "/data/" in member.name}
    program = next((m for m in members if m.name.partition("/")[2] == "data.pkl"), None)
    if not _little_endian(members):
        contents.notes.append("written on a big-endian machine: no repair in place")
        tree, starts = _load(span, "cpu"), {}
    else:
        plain, tree = _without_data(span)
        if not plain:
            contents.notes.append("quantized, nested or sparse tensors in it: no repair in place")
            tree, starts = _load(span, "cpu"), {}
    pickled = None if program is None else program.span
    for keys, value in leaves(tree):
        _add(contents, (*prefix, *keys), value, starts, pickled, program)
    return contents


def read_legacy(path: Path) -> Contents:
    """Reads a file as `torch.save` wrote it before version 1.6; all of it comes into memory.

    Raises:
        CheckpointError: it is damaged, or would need code to be run.
    """
    contents = Contents(path, "torch.save, the format before torch 1.6", files=[path])
    contents.notes.append(
        "the format before torch 1.6 has no directory: all of it was read into memory, and it is "
        "not repaired; load it and save it anew with torch.save"
    )
    for keys, value in leaves(_load(Span(path, 0, path.stat().st_size), "cpu")):
        _add(contents, keys, value, {}, None, None)
    return contents


def _little_endian(members: list[ZipMember]) -> bool:
    order = [member.span for member in members if member.name.partition("/")[2] == "byteorder"]
    return all(span.nbytes < 16 and span.read() == b"little" for span in order)


def _without_data(span: Span) -> tuple[bool, Any]:
    """The tree with tensors that have no data; False first where some kind has no such form."""
    try:
        tree = _load(span, "meta")
    except NotImplementedError:  # quantized, nested
        return False, None
    tensors = [value for _, value in leaves(tree) if isinstance(value, Tensor)]
    sparse = any(tensor.layout not in (torch.strided, torch.jagged) for tensor in tensors)
    return not sparse, tree


def _load(span: Span, device: str) -> Any:
    try:
        with warnings.catch_warnings(), Window(span) as window:
            warnings.simplefilter("ignore")
            whole = span.start == 0 and span.nbytes == span.file.stat().st_size
            mapped = device == "cpu" and whole and archive_magic(span)
            source = span.file if mapped else cast(Any, window)
            return torch.load(source, map_location=device, weights_only=True, mmap=mapped)
    except NotImplementedError:
        if device == "meta":
            raise
        raise _refusal(span, "it holds tensors that torch cannot load") from None
    except pickle.UnpicklingError as error:
        raise _refusal(span, str(error)) from None
    except Exception as error:  # a stranger's bytes may end `torch.load` in any exception
        raise _refusal(span, f"{type(error).__name__}: {error}") from error


def archive_magic(span: Span) -> bool:
    """Whether the bytes begin as a zip archive does."""
    return Span(span.file, span.start, 4).read() == b"PK\x03\x04"


def _refusal(span: Span, reason: str) -> CheckpointError:
    """The one line that says what the file wants, or what is wrong with it."""
    wanted = _globals(span)
    if wanted:
        more = f" and {len(wanted) - _NAMES_SHOWN} more" if len(wanted) > _NAMES_SHOWN else ""
        return CodeNeededError(
            f"{span.file}: refused, nothing of it was executed: the file needs code to be run "
            f"({', '.join(wanted[:_NAMES_SHOWN])}{more}); where you trust the file, save its "
            "state_dict() alone, or allow these with torch.serialization.add_safe_globals"
        )
    text = reason.rpartition("trusted source.")[2].partition("Check the documentation")[0]
    line = " ".join((text or reason).split())
    if "GLOBAL" in line or "reduce" in line or "create new object" in line:
        return CodeNeededError(f"{span.file}: refused, nothing of it was executed: {line[:300]}")
    return CheckpointError(f"{span.file}: cannot be read, it is damaged: {line[:300]}")


def _globals(span: Span) -> list[str]:
    """Classes and functions that a file asks for and that only its own code could give."""
    try:
        with Window(span) as window:
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(cast(Any, window)))
    except Exception:  # noqa: BLE001  the file is damaged; what is known is said without this
        return []


def _add(
    contents: Contents,
    keys: Keys,
    value: object,
    starts: dict[int, ZipMember],
    pickled: Span | None,
    record: ZipMember | None,
) -> None:
    """Takes in one leaf of the tree."""
    if isinstance(value, Tensor):
        contents.entries.append(_entry(contents, keys, value, starts))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        contents.scalars.append(Scalar(keys, as_float(value), pickled, record))
    elif isinstance(value, dict | list | tuple | set | frozenset):
        contents.notes.append(f"nested deeper than {DEPTH} levels: not looked at there")


def _entry(contents: Contents, keys: Keys, tensor: Tensor, starts: dict[int, ZipMember]) -> Entry:
    if is_wrapper(tensor) or tensor.is_nested:
        return Entry(keys, tensor.dtype, (), note=f"a {type(tensor).__name__}, {tensor.layout}")
    shape = tuple(int(n) for n in tensor.shape)
    if tensor.layout != torch.strided:
        note = str(tensor.layout) if tensor.is_meta else ""
        return Entry(keys, tensor.dtype, shape, tensor=None if note else tensor, note=note)
    if tensor.is_quantized:
        return Entry(keys, tensor.dtype, shape, note="quantized: whole numbers are always finite")
    if not tensor.is_meta:
        return Entry(keys, tensor.dtype, shape, tensor=tensor)
    start = checkpoint_offset(tensor.untyped_storage())
    if start is None:
        return Entry(keys, tensor.dtype, shape, note="saved on the meta device, without values")
    record = starts.get(start + (contents.records[0].archive.start if contents.records else 0))
    if record is None:
        raise _beyond(contents, keys)
    return _placed(contents, keys, tensor, record.span, record)


def _placed(
    contents: Contents, keys: Keys, tensor: Tensor, storage: Span, record: ZipMember | None
) -> Entry:
    """A tensor by its place in the bytes of its storage."""
    shape = tuple(int(n) for n in tensor.shape)
    stride = tuple(int(n) for n in tensor.stride())
    nbytes = extent(shape, stride) * tensor.itemsize
    skip = int(tensor.storage_offset()) * tensor.itemsize if nbytes else 0
    if skip + nbytes > storage.nbytes:
        raise _beyond(contents, keys)
    span = Span(storage.file, storage.start + skip, nbytes)
    return Entry(keys, tensor.dtype, shape, stride, span, record)


def _beyond(contents: Contents, keys: Keys) -> CheckpointError:
    return CheckpointError(
        f"{contents.path}: {'.'.join(keys)[:100]} reaches beyond the bytes that are stored for "
        "it: the file is damaged; take an earlier one"
    )


_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")

ARCHIVE = Format(
    _SUFFIXES,
    lambda head, _: head.startswith(b"PK\x03\x04"),
    lambda path: read_archive(Span(path, 0, path.stat().st_size)),
)
LEGACY = Format(_SUFFIXES, lambda head, _: head.startswith(b"\x80"), read_legacy)  # a pickle
