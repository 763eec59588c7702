"""What a reader of one file format tells of itself, so that a file finds it by its first bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from nanhunt.checkpoints.formats.contents import Contents

HEAD = 512  # bytes of a file that a format may look at


@dataclasses.dataclass(frozen=True)
class Format:
    """One format of files; `opening.FORMATS` lists all.

    Attributes:
        suffixes: by which its files are found in a folder.
        begins: whether a file with these first bytes (at most `HEAD`) and this size is one.
        read: reads what a file holds, without its tensors' data where the format allows it;
            raises `CheckpointError` where the file is damaged or would need code to be run.
    """

    suffixes: tuple[str, ...]
    begins: Callable[[bytes, int], bool]
    read: Callable[[Path], Contents]
