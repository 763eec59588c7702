"""Failures of nanhunt's own: a line in the report, and the user's program goes on."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import PurePath

_PACKAGE = PurePath(__file__).parents[2]


def one_line(error: BaseException) -> str:
    """An exception's type and the first line of what it says, short enough for a note."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def for_its_authors(error: BaseException) -> str:
    """The line that the authors of nanhunt need: what failed, and where in nanhunt."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if _PACKAGE in PurePath(frame.filename).parents]
    if not inside:
        return one_line(error)
    place = PurePath(inside[-1].filename).relative_to(_PACKAGE.parent).as_posix()
    return f"{one_line(error)} ({place}:{inside[-1].lineno})"


@contextlib.contextmanager
def noted(notes: list[str], what: str) -> Iterator[list[Exception]]:
    """Whatever exception is raised in the block ends it and becomes a note.

    Args:
        notes: gets a line.
        what: how the line begins, e.g. `"the step could not be examined"`.

    Yields:
        A list that holds the exception afterwards, if there was one.
    """
    failed: list[Exception] = []
    try:
        yield failed
    except Exception as error:  # noqa: BLE001  whatever it is: out of memory, a mistake of ours
        notes.append(f"{what}: {one_line(error)}")
        failed.append(error)
