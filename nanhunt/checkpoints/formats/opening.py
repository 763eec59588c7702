"""Which reader a path needs, told by what is in it and never by its name alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from nanhunt.checkpoints.formats import distributed, safetensors
from nanhunt.checkpoints.formats.contents import Contents
from nanhunt.checkpoints.formats.format import HEAD
from nanhunt.checkpoints.formats.torchfile import ARCHIVE, LEGACY
from nanhunt.errors import CheckpointError, CodeNeededError

# Asked in this order; the first whose magic bytes a file begins with reads it.
FORMATS = (ARCHIVE, safetensors.FORMAT, LEGACY)
SUFFIXES = tuple(dict.fromkeys(suffix for each in FORMATS for suffix in each.suffixes))
_INDEX = ".index.json"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.)")
_NUMBER = re.compile(r"\d+")
# What each process of a run writes for itself: parts of one checkpoint, as transformers' Trainer
# (rng_state_0.pth) and DeepSpeed (zero_pp_rank_0_mp_rank_00_optim_states.pt) name them.
_PART = re.compile(r"(rank|rng_state|random_states)[_-]?\d+")

# What people take for a checkpoint, by its first bytes.
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer instead of the file; run `git lfs pull`",
    b"<": "a web page or XML, as a failed download leaves it",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x89HDF": "an HDF5 file (Keras); only PyTorch's formats are read",
    b"\x93NUMPY": "a NumPy array; only PyTorch's formats are read",
    b"GGUF": "a GGUF file; only PyTorch's formats are read",
}
_TAR = slice(257, 262), b"ustar"  # where POSIX puts the magic of a tar archive


def read(path: Path) -> Contents:
    """Reads what a checkpoint holds, without its tensors' data.

    Args:
        path: a file, or a folder that is one checkpoint.

    Raises:
        CheckpointError: it is damaged, of no known format, or would need code to be run.
        OSError: it cannot be opened.
    """
    return _folder(path) if path.is_dir() else _file(path)


def is_checkpoint_folder(folder: Path) -> bool:
    """Whether a folder is one checkpoint, and no series of them."""
    return _has_index(folder) or bool(checkpoint_files(folder) and not series_in(folder))


def checkpoint_files(folder: Path) -> list[Path]:
    """Files with the suffix of a checkpoint, by name."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix in SUFFIXES and file.is_file() and not _hidden(file)
    )


def series_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder that differ in nothing but numbers; at least two, or none."""
    folders = [item for item in sorted(folder.iterdir()) if _is_single(item)]
    return _longest_family([*checkpoint_files(folder), *folders])


def _is_single(item: Path) -> bool:
    """Whether something in a folder is a folder that is one checkpoint; looks no deeper."""
    try:
        if not item.is_dir() or _hidden(item):
            return False
        files = checkpoint_files(item)
        return _has_index(item) or bool(files and not _longest_family(files))
    except OSError:  # a folder that may not be read is no reason to give up on the others
        return False


def _has_index(folder: Path) -> bool:
    return (folder / distributed.INDEX).is_file() or any(folder.glob(f"*{_INDEX}"))


def _longest_family(items: list[Path]) -> list[Path]:
    """Those whose names differ in numbers alone, if there are two.

    Shards are no family, nor is what differs in the number of a process alone.
    """
    families: dict[str, list[Path]] = {}
    for item in items:
        if not _SHARD.search(item.name):
            families.setdefault(_NUMBER.sub("#", item.name), []).append(item)
    several = [family for family in families.values() if len(set(map(_moment, family))) > 1]
    return max(several, key=len, default=[])


def _moment(item: Path) -> str:
    """The name without what tells the processes of a run apart."""
    return _PART.sub("", item.name)


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.stem.endswith("_FIXED")


def _file(path: Path) -> Contents:
    size = path.stat().st_size
    if not path.is_file():
        raise CheckpointError(f"{path}: neither a file nor a folder")
    with path.open("rb") as stream:
        first = stream.read(HEAD)
    if not size:
        raise CheckpointError(f"{path}: the file is empty; take an earlier one")
    for known in FORMATS:
        if known.begins(first, size):
            return known.read(path)
    for magic, meaning in _OTHERS.items():
        if first.lstrip().startswith(magic):
            raise CheckpointError(f"{path}: {meaning}")
    if first[_TAR[0]] == _TAR[1]:
        raise CheckpointError(f"{path}: a tar archive; unpack it first")
    if path.suffix == ".safetensors":
        return safetensors.read(path)  # says what is wrong with it
    raise CheckpointError(
        f"{path}: no checkpoint: it begins with {first[:8]!r}, neither as a file of torch.save "
        "nor as safetensors"
    )


def _folder(folder: Path) -> Contents:
    if (folder / distributed.INDEX).is_file():
        return distributed.read(folder)
    contents = Contents(folder, "folder")
    indexed: set[Path] = set()
    for index in sorted(folder.glob(f"*{_INDEX}")):
        contents.layout = "sharded"
        indexed |= _sharded(contents, index)
    for file in checkpoint_files(folder):
        if file not in indexed:
            _member(contents, file, needed=False)
    if not contents.files and not contents.missing:
        why = [*contents.damage, *contents.refused, *contents.notes]
        told = f" ({why[0]})" if why else ""
        raise CheckpointError(f"{folder}: no checkpoint in this folder could be read{told}")
    _check_shards(contents)
    return contents


def _member(contents: Contents, file: Path, needed: bool) -> None:
    """A file beside others; `needed` says whether an index names it."""
    try:
        part = _file(file)
    except CodeNeededError as error:  # such as the Trainer's training_args.bin
        (contents.damage if needed else contents.refused).append(str(error))
        return
    except CheckpointError as error:
        foreign = file.suffix == ".bin" and not needed and "no checkpoint" in str(error)
        (contents.notes if foreign else contents.damage).append(str(error))
        return
    if contents.layout == "folder":
        contents.layout = f"{part.layout} files"
    contents.extend(part)


def _sharded(contents: Contents, index: Path) -> set[Path]:
    """Reads the shards that an index names; returns their paths."""
    places = _weight_map(index)
    wanted: dict[str, set[str]] = {}
    for key, name in places.items():
        wanted.setdefault(name, set()).add(key)
    for name, keys in sorted(wanted.items()):
        file = index.parent / name
        if Path(name).name != name:
            raise CheckpointError(f"{index}: refused: it points outside its folder ({name})")
        if not file.is_file():
            contents.missing.append(name)
            continue
        before = len(contents.entries)
        _member(contents, file, needed=True)
        there = {entry.key for entry in contents.entries[before:]}
        for word, keys_off in (("lacks", keys - there), ("holds also", there - keys)):
            if keys_off and there:
                some = ", ".join(sorted(keys_off)[:3])
                text = f"{name} {word} {len(keys_off)} of the tensors in the index ({some})"
                contents.damage.append(text if word == "lacks" else f"{name} {word} {some}")
    contents.layout = f"{contents.layout}, {len(wanted)} shards"
    return {index.parent / name for name in wanted}


def _weight_map(index: Path) -> dict[str, str]:
    try:
        data: Any = json.loads(index.read_text(encoding="utf-8"))
        places = dict(data["weight_map"].items())
        if not all(isinstance(name, str) for name in places.values()):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{index}: this index has no readable weight_map") from None
    return places


def _check_shards(contents: Contents) -> None:
    """Shards carry their number and how many there are in their names."""
    families: dict[tuple[str, str, str], set[int]] = {}
    for file in contents.files:
        named = _SHARD.search(file.name)
        if named is not None:
            family = (file.name[: named.start()], named[2], file.name[named.end() :])
            families.setdefault(family, set()).add(int(named[1]))
    for (before, total, after), numbers in families.items():
        for number in sorted(set(range(1, min(int(total), 10_000) + 1)) - numbers):
            name = f"{before}-{number:05}-of-{total}{after}"
            if name not in contents.missing:
                contents.missing.append(name)
