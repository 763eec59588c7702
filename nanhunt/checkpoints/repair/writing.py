"""The repaired copy: written beside the original, read back, and only then given its name.

The copy is made byte for byte and changed in place, so that structure, metadata and everything
healthy keep their bits. Until it is complete, on the disk and verified it has a name that
begins with a dot; whoever is killed before leaves at most that behind.
"""

from __future__ import annotations

import os
import secrets
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from nanhunt.checkpoints.formats.archive import checksum_places, set_checksum
from nanhunt.checkpoints.formats.contents import Span, ZipMember
from nanhunt.checkpoints.judge.examine import ExaminedCheckpoint, examine
from nanhunt.checkpoints.judge.scan import PIECE
from nanhunt.checkpoints.repair.patches import AnyPatch
from nanhunt.core.program.files import name_once, sync
from nanhunt.errors import CheckpointError, UsageError
from nanhunt.records.diagnosis import Repair, RepairChange

_MARK = "_FIXED"


def target_of(path: Path) -> Path:
    """Where the repaired copy goes: `NAME_FIXED.ext` beside the original.

    Raises:
        UsageError: something is there already; nothing is ever written over.
    """
    target = path.with_name(f"{path.stem}{_MARK}{path.suffix}")
    if path.is_dir():
        target = path.with_name(f"{path.name}{_MARK}")
    if os.path.lexists(target):
        raise UsageError(f"{target} is there already and is not written over; move it away first")
    return target


def write(examination: ExaminedCheckpoint, patches: list[AnyPatch]) -> Repair:
    """Writes the repaired copy of a file or folder.

    Args:
        examination: the original.
        patches: what to change.

    Raises:
        UsageError: there is something under the copy's name.
        CheckpointError: the copy, read back, is not what it should be; it is removed again.
        OSError: it cannot be written.
    """
    path = examination.contents.path
    if not patches:
        return Repair("", left=_left(examination))
    target = target_of(path)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        changes = _draft(examination, patches, draft)
        left = _read_back(examination, draft)
        _publish(draft, target)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)
    return Repair(str(target), tuple(changes), left)


def _draft(
    examination: ExaminedCheckpoint, patches: list[AnyPatch], draft: Path
) -> list[RepairChange]:
    path, changes = examination.contents.path, []
    if path.is_dir():
        shutil.copytree(path, draft)
    else:
        shutil.copyfile(path, draft)
        shutil.copymode(path, draft)
    for file in dict.fromkeys(patch.span.file for patch in patches):
        copy = draft / file.relative_to(path) if path.is_dir() else draft
        mine = [patch for patch in patches if patch.span.file == file]
        with copy.open("r+b") as stream:
            changes += _change(stream, mine)
            checksums = _set_checksums(stream, mine)
            stream.flush()
            os.fsync(stream.fileno())
        _compare(file, copy, [*(patch.span for patch in mine), *checksums])
    if path.is_dir():
        for copy in sorted(draft.rglob("*")):
            sync(copy)
        sync(draft)
    return changes


def _change(stream: BinaryIO, patches: Iterable[AnyPatch]) -> list[RepairChange]:
    changes = []
    for patch in patches:
        data, count = patch.make()
        if len(data) != patch.span.nbytes:
            raise CheckpointError(
                f"{patch.span.file}: {patch.key} would need {len(data):,} bytes in the place of "
                f"{patch.span.nbytes:,}"
            )
        stream.seek(patch.span.start)
        stream.write(data)
        if count:  # another tensor of that name may be the one that was bad
            changes.append(RepairChange(patch.key, count, patch.text))
    return changes


def _set_checksums(stream: BinaryIO, patches: list[AnyPatch]) -> list[Span]:
    """Checksums that were right are made right again; one that was wrong stays as evidence."""
    changed = []
    directories: dict[Span, dict[str, list[int]]] = {}
    for record in dict.fromkeys(patch.record for patch in patches):
        if record is None or record.crc is None or _crc(record) != record.crc:
            continue
        stream.flush()
        copied = Span(Path(stream.name), record.span.start, record.span.nbytes)
        if record.archive not in directories:
            directories[record.archive] = checksum_places(record.archive)
        places = directories[record.archive].get(record.name, [])
        changed += set_checksum(stream, record, places, _crc_of(copied))
    return changed


def _crc(record: ZipMember) -> int:
    return _crc_of(record.span)


def _crc_of(span: Span) -> int:
    crc = 0
    with span.file.open("rb") as stream:
        stream.seek(span.start)
        left = span.nbytes
        while left > 0:
            piece = stream.read(min(PIECE, left))
            if not piece:
                break
            crc = zlib.crc32(piece, crc)
            left -= len(piece)
    return crc


def _compare(original: Path, copy: Path, changed: list[Span]) -> None:
    """Everything outside the changed ranges has to be the same, byte for byte."""
    size = original.stat().st_size
    same = copy.stat().st_size == size
    place = 0
    ranges = [(span.start, span.start + span.nbytes) for span in changed]
    with original.open("rb") as first, copy.open("rb") as second:
        for start, end in [*sorted(ranges), (size, size)]:
            first.seek(place)
            second.seek(place)
            while same and place < start:
                length = min(PIECE, start - place)
                same = first.read(length) == second.read(length)
                place += length
            place = max(place, end)
    if not same:
        raise CheckpointError(
            f"{original}: the copy differs from it where nothing was changed; was it written to "
            "meanwhile?"
        )


def _read_back(examination: ExaminedCheckpoint, draft: Path) -> tuple[str, ...]:
    """Opens the copy as anybody would, and returns what is still bad in it."""
    again = examine(draft, examination.roles.buffers, examination.roles.parameters)
    before, after = (
        [(entry.keys, entry.dtype, entry.shape) for entry in one.contents.entries]
        for one in (examination, again)
    )
    if before != after:
        raise CheckpointError(f"{examination.contents.path}: the copy does not hold the same keys")
    return _left(again)


def _left(examination: ExaminedCheckpoint) -> tuple[str, ...]:
    bad = [p.key or p.file or p.text for p in examination.problems if p.severity == "critical"]
    return tuple(dict.fromkeys(bad))


def _publish(draft: Path, target: Path) -> None:
    """Gives the copy its name in one step, and never over something that is there."""
    try:
        name_once(draft, target)
    except FileExistsError:
        raise UsageError(f"{target} was written meanwhile and is not written over") from None
    sync(target.parent)
