"""Marks failures of nanhunt's own that go through the user's code on their way out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_MARK = "_nanhunt_own"


def ours(hook: Callable[_P, _T]) -> Callable[_P, _T]:
    """For a hook that only watches: what it raises is not the user's, whose call brought it up."""

    @functools.wraps(hook)
    def marked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return hook(*args, **kwargs)
        except Exception as error:
            with contextlib.suppress(AttributeError):  # an exception that has no room for it
                setattr(error, _MARK, True)
            raise

    return marked


def is_ours(error: BaseException) -> bool:
    """Whether a hook of nanhunt's raised this."""
    return getattr(error, _MARK, False)
