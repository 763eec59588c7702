"""Checkpoints of torch.distributed (DCP): a folder with a pickled index, `.metadata`.

The index is read by an unpickler of our own that knows a handful of names and makes plain
records of them; anything else in it is refused. Each tensor lies as an archive of `torch.save`
within a `.distcp` file. Format: `torch/distributed/checkpoint/metadata.py`, `filesystem.py`.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from nanhunt.checkpoints.formats.contents import Contents, Keys, Span
from nanhunt.checkpoints.formats.torchfile import read_archive
from nanhunt.errors import CheckpointError, CodeNeededError

INDEX = ".metadata"


class _Plain:
    """Stands for an object of the index: what it was made with, and its attributes."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(name): value for name, value in state.items()})

    def __hash__(self) -> int:
        return id(self)


def _plain(name: str) -> type[_Plain]:
    return type(name, (_Plain,), {})


_METADATA = (
    "BytesStorageMetadata",
    "ChunkStorageMetadata",
    "Metadata",
    "MetadataIndex",
    "StorageMeta",
    "TensorProperties",
    "TensorStorageMetadata",
    "_MEM_FORMAT_ENCODING",
)
_STORAGE = ("_StorageInfo", "_StoragePrefix")
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")
# No function of our own: a pickle may set the attributes of what it has been given, for good.
_KNOWN: dict[tuple[str, str], Any] = {
    ("torch", "Size"): tuple,
    ("torch.serialization", "_get_layout"): _plain("layout"),
    ("collections", "OrderedDict"): dict,
    **{("torch.distributed.checkpoint.metadata", name): _plain(name) for name in _METADATA},
    **{("torch.distributed.checkpoint.filesystem", name): _plain(name) for name in _STORAGE},
    **{("pathlib", name): _plain(name) for name in _PATHS},
}


class _IndexUnpickler(pickle.Unpickler):
    """Makes plain records of known names, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return name
        raise CodeNeededError(f"refused, nothing of it was executed: it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise CodeNeededError("refused, nothing of it was executed: it asks for foreign objects")


def read(folder: Path) -> Contents:
    """Reads a folder of `torch.distributed.checkpoint.save`.

    Raises:
        CheckpointError: the index is damaged or asks for code.
    """
    index = _index(folder / INDEX)
    contents = Contents(folder, "torch.distributed checkpoint")
    places = getattr(index, "storage_data", None)
    if not isinstance(places, dict):
        raise CheckpointError(f"{folder / INDEX}: it has no list of what is stored where")
    paths = getattr(index, "planner_data", None)
    about = getattr(index, "state_dict_metadata", None)
    files: dict[str, int] = {}
    for what, where in places.items():
        name, span, keys = _item(folder, paths, what, where)
        if name not in files:
            file = folder / name
            files[name] = file.stat().st_size if file.is_file() else -1
            (contents.files.append(file) if files[name] >= 0 else contents.missing.append(name))
        if files[name] < 0:
            continue
        if span.start + span.nbytes > files[name]:
            contents.damage.append(f"{'.'.join(keys)} lies beyond the end of {name}")
            continue
        _add(contents, span, keys, _whole_shape(about, what.fqn))
    return contents


def _index(file: Path) -> Any:
    try:
        return _IndexUnpickler(io.BytesIO(file.read_bytes())).load()
    except CheckpointError as error:
        raise type(error)(f"{file}: {error}") from None
    except OSError:
        raise
    except Exception as error:  # a stranger's bytes may end an unpickler in any exception
        raise CheckpointError(f"{file}: the index is damaged ({error})") from error


def _item(folder: Path, paths: Any, what: Any, where: Any) -> tuple[str, Span, Keys]:
    """File name, bytes and keys of one stored item."""
    try:
        name, start, length = where.relative_path, where.offset, where.length
        fqn, offset = what.fqn, getattr(what, "offset", None)
    except AttributeError as error:
        raise CheckpointError(f"{folder / INDEX}: the index is damaged ({error})") from None
    ok = isinstance(name, str) and isinstance(fqn, str)
    if not ok or type(start) is not int or type(length) is not int or min(start, length) < 0:
        raise CheckpointError(f"{folder / INDEX}: the index is damaged ({fqn!r:.80})")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise CheckpointError(f"{folder / INDEX}: refused: it points outside its folder ({name})")
    if getattr(where, "transform_descriptors", None):
        raise CheckpointError(f"{folder / INDEX}: its items are compressed or encrypted")
    path = paths.get(fqn) if isinstance(paths, dict) else None
    keys = tuple(map(str, path)) if isinstance(path, tuple | list) else tuple(fqn.split("."))
    if isinstance(offset, tuple) and any(offset):
        keys = (*keys[:-1], f"{keys[-1]}@{','.join(map(str, offset))}")
    return name, Span(folder / name, start, length), keys


def _whole_shape(about: Any, fqn: str) -> tuple[int, ...] | None:
    """The shape of the tensor of which an item is a shard, or all."""
    size = getattr(about.get(fqn), "size", None) if isinstance(about, dict) else None
    known = isinstance(size, tuple) and all(type(n) is int for n in size)
    return size if known else None


def _add(contents: Contents, span: Span, keys: Keys, whole: tuple[int, ...] | None) -> None:
    try:
        part = read_archive(span, keys)
    except CheckpointError as error:
        contents.damage.append(f"{'.'.join(keys)} cannot be read: {error}")
        return
    part.entries = [
        dataclasses.replace(entry, whole=None if entry.shape == whole else whole)
        for entry in part.entries
    ]
    part.files, part.notes = [], [note for note in part.notes if note not in contents.notes]
    contents.extend(part)
