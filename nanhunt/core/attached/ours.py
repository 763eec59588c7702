"""Failures of nanhunt's own in what the user's code calls unknowingly: hooks and patches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

_MARK = "_nanhunt_own"


@contextlib.contextmanager
def ours(instead: Callable[[Exception], None] | None = None) -> Iterator[None]:
    """What is raised in the block is not the user's, whose call brought it up.

    Args:
        instead: called with it, so that the user's code goes on; what that raises in turn does
            go through. None to raise it, marked.
    """
    try:
        yield
    except Exception as error:
        if instead is not None:
            instead(error)
            return
        with contextlib.suppress(AttributeError):  # an exception that has no room for it
            setattr(error, _MARK, True)
        raise


def is_ours(error: BaseException) -> bool:
    """Whether a hook of nanhunt's raised this."""
    return getattr(error, _MARK, False)
