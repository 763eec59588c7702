"""Files that get their name when they are complete, and never over something that is there."""

from __future__ import annotations

import os
from pathlib import Path


def name_once(draft: Path, target: Path) -> None:
    """Gives a file or folder another name, which nothing may have yet.

    A file's old name may be there still.

    Raises:
        FileExistsError: something has that name.
    """
    if draft.is_dir():
        _rename(draft, target)
        return
    try:
        os.link(draft, target)  # unlike a rename it fails when the name is taken
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        _rename(draft, target)


def _rename(draft: Path, target: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(target)
    draft.rename(target)


def sync(path: Path) -> None:
    """Brings a file or the names in a folder onto the disk, where the system can do that."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
