"""`nanhunt.save_guard`: a poisoned checkpoint gets a healthy copy beside it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nanhunt.checkpoints.doctor import doctor
from nanhunt.core.attached.patches import patch
from nanhunt.errors import NanhuntError
from nanhunt.records.diagnosis import Diagnosis


def save_guard(*paths: str | Path) -> SaveGuard:
    """Guards the saving of checkpoints inside a `with` block.

    Every file that `torch.save` is given the path of in the block is read back and examined
    after it, and so are the files in `paths`, for other writers (also those that give
    `torch.save` an open file, or rename what it has written). Of one that is not healthy a
    repaired copy `NAME_FIXED.ext` is written beside it, as by `nanhunt.doctor(path, fix=True)`,
    and a warning says why. Weights that are not finite are not made up: then the warning says
    so. The files themselves are written as the program writes them.

    Args:
        *paths: files that something else than `torch.save` writes in the block.

    Returns:
        A context manager; its `diagnoses` have one entry per file that could be read.

    Example:
        with nanhunt.save_guard():
            torch.save(model.state_dict(), "last.pt")
    """
    return SaveGuard([Path(path) for path in paths])


class SaveGuard:
    """An active guard of saving; made by `nanhunt.save_guard`.

    Attributes:
        diagnoses: what was found in each file that could be read, and what was written beside
            it.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self.diagnoses: list[Diagnosis] = []

    def __enter__(self) -> SaveGuard:
        # Some save in a thread of their own.
        self._take_off = patch(torch, "save", self._noted, every_thread=True)
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._take_off()
        if kind is None:
            for path in self._paths:
                self._examine(path)

    def _noted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(obj, f, *args, **kwargs)
            if isinstance(f, str | os.PathLike) and Path(f) not in self._paths:
                self._paths.append(Path(f))
            return result

        return save

    def _examine(self, path: Path) -> None:
        try:
            found = doctor(path)
        except (NanhuntError, OSError) as error:
            warnings.warn(f"{path} could not be examined: {error}", stacklevel=3)
            return
        trouble = ""
        if not found.healthy:
            try:
                found = doctor(path, fix=True)
            except (NanhuntError, OSError) as error:  # such as a copy that is there already
                trouble = f"; no repaired copy was written: {error}"
        self.diagnoses.append(found)
        if not found.healthy:
            warnings.warn(_told(found, trouble), stacklevel=3)


def _told(found: Diagnosis, trouble: str) -> str:
    bad = [problem.key for problem in found.problems if problem.severity == "critical"]
    more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
    told = f"{found.path} was saved with bad values in {', '.join(bad[:4])}{more}"
    if trouble:
        return told + trouble
    if found.repair is None or not found.repair.path:
        return f"{told}; nothing of it could be repaired"
    left = f"; still bad in it: {', '.join(found.repair.left[:4])}" if found.repair.left else ""
    return f"{told}; a repaired copy is {found.repair.path}{left}"
