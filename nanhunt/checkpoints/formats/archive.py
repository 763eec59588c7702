"""The members of a zip archive as ranges of bytes, and their checksums after a change.

`torch.save` stores every storage uncompressed and aligned, so a tensor is a plain range of
the file. Layout of the headers: PKWARE's APPNOTE.TXT, sections 4.3.7 (local file header),
4.3.9 (data descriptor) and 4.3.12 (central directory header).
"""

from __future__ import annotations

import struct
import zipfile
from typing import BinaryIO, cast

from nanhunt.checkpoints.formats.contents import Span, Window, ZipMember
from nanhunt.errors import CheckpointError

_LOCAL, _DESCRIPTOR, _CENTRAL = b"PK\x03\x04", b"PK\x07\x08", b"PK\x01\x02"


def records(archive: Span) -> list[ZipMember]:
    """The members of an archive, without reading their data.

    Raises:
        CheckpointError: it is truncated, damaged, compressed or encrypted.
    """
    found = []
    with Window(archive) as window:
        for info in _directory(archive, cast(BinaryIO, window)).infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise CheckpointError(
                    f"{archive.file}: {info.filename} is compressed or encrypted in the zip "
                    "archive, as torch.save never writes it; unpack it first"
                )
            start = _data_start(archive, window, info)
            if start + info.file_size > archive.nbytes:
                raise CheckpointError(f"{archive.file}: the file is truncated: {info.filename}")
            span = Span(archive.file, archive.start + start, info.file_size)
            # Saved with torch.serialization.set_crc32_options(False), all checksums are 0.
            crc = info.CRC if info.CRC or not info.file_size else None
            found.append(ZipMember(info.filename, span, crc, archive))
    return found


def _directory(archive: Span, window: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(window)
    except (zipfile.BadZipFile, ValueError, OverflowError, struct.error, NotImplementedError) as e:
        raise CheckpointError(
            f"{archive.file}: the zip archive has no readable directory at its end ({e}): the "
            "file is truncated or damaged; take an earlier one"
        ) from e


def _data_start(archive: Span, window: Window, info: zipfile.ZipInfo) -> int:
    window.seek(info.header_offset)
    header = window.read(30) or b""
    if info.header_offset < 0 or len(header) < 30 or header[:4] != _LOCAL:
        raise CheckpointError(
            f"{archive.file}: {info.filename} is not where the zip archive's directory says: the "
            "file is truncated or damaged; take an earlier one"
        )
    name, extra = struct.unpack("<HH", header[26:30])
    return int(info.header_offset + 30 + name + extra)


def checksum_places(archive: Span) -> dict[str, list[int]]:
    """Where an archive holds the CRC-32 of each member, by the member's name.

    Returns:
        Positions in the file: in the central directory and in the local header. The data
        descriptor that may follow the data is left to `set_checksum`.
    """
    places: dict[str, list[int]] = {}
    with Window(archive) as window:
        directory = _directory(archive, cast(BinaryIO, window))
        window.seek(directory.start_dir)
        headers = window.read(archive.nbytes - directory.start_dir) or b""
    place = 0
    for info in directory.infolist():
        header = headers[place : place + 46]
        if header[:4] != _CENTRAL:
            break
        central = archive.start + directory.start_dir + place + 16
        places[info.filename] = [central, archive.start + info.header_offset + 14]
        place += 46 + sum(struct.unpack("<HHH", header[28:34]))
    return places


def set_checksum(stream: BinaryIO, record: ZipMember, places: list[int], crc: int) -> list[Span]:
    """Writes a member's new CRC-32 wherever the archive holds the old one.

    Args:
        stream: the copy of the archive's file, open for reading and writing.
        record: the member, by its place in the original file.
        places: where the archive holds its checksum, see `checksum_places`.
        crc: the checksum of its new bytes.

    Returns:
        The ranges of bytes that have changed.
    """
    assert record.crc is not None
    old, new = struct.pack("<I", record.crc), struct.pack("<I", crc)
    end = record.span.start + record.span.nbytes
    stream.seek(end)
    if stream.read(4) == _DESCRIPTOR:
        places = [*places, end + 4]
    changed = []
    for place in places:
        stream.seek(place)
        if stream.read(4) == old:
            stream.seek(place)
            stream.write(new)
            changed.append(Span(record.span.file, place, 4))
    return changed
