"""What the user's variables held when the step raised an exception."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from types import FrameType

import torch
from torch import Tensor

from nanhunt.core.program.source_lines import CALL_STEP, is_user_code, kind_of
from nanhunt.core.tensors.stats import count_bad, plain_tensors
from nanhunt.core.tensors.storage import Region
from nanhunt.core.watch.step_facts import Sink

_OF_VALUES = re.compile(r"\b(nans?|infs?|infinit\w+|finite|invalid values)\b", re.IGNORECASE)
_LOOKED_AT = 256  # tensors in all
# What no value of a tensor is the reason of: files and connections, names, memory.
_OTHER_REASONS = (
    OSError,
    ImportError,
    NameError,
    AttributeError,
    MemoryError,
    EOFError,
    torch.OutOfMemoryError,
)


def held_when_raised(
    error: BaseException,
    region: Callable[[Tensor], Region | None] = lambda _: None,
    index: int = 0,
    wanted: Callable[[Tensor], bool] = lambda _: True,
) -> list[Sink]:
    """Tensors in variables of the user's frames that are not finite, the innermost frame first.

    NumPy, SciPy and plain Python look at values without any operation of torch; what they were
    given mostly stands in a variable yet.

    Args:
        error: what the step raised.
        region: gives the memory of a tensor.
        index: number of operations that had run.
        wanted: which tensors to look at.
    """
    if isinstance(error, _OTHER_REASONS):
        return []
    tensors = (
        (name, tensor)
        for frame in reversed(_frames(error))
        for name, value in frame.f_locals.items()
        for tensor in plain_tensors(value, depth=2)
        if wanted(tensor)
    )
    held = []
    for name, tensor in itertools.islice(tensors, _LOOKED_AT):
        nan, posinf, neginf = count_bad(tensor)
        if nan or posinf:  # -Inf alone may be a mask
            what = f"`{name}` when {type(error).__name__} was raised"
            held.append(Sink("operation", what, region(tensor), nan, posinf + neginf, index))
    return held


def given_when_raised(error: BaseException) -> list[Sink]:
    """NaNs that torch was given by the user's innermost frame, where it raised for a value.

    A shape that does not fit is no reason to look at values: only errors of linear algebra are
    followed, and those that speak of values.
    """
    refused = torch.linalg.LinAlgError  # type: ignore[attr-defined]
    if not isinstance(error, refused) and not _OF_VALUES.search(str(error)):
        return []
    frames: list[FrameType] = []
    for frame in _all_frames(error):
        kind = kind_of(frame.f_code.co_filename)
        frames = [] if kind == "user" else frames + [frame] * (kind == "torch")
    tensors = (
        tensor
        for frame in frames
        for value in frame.f_locals.values()
        for tensor in plain_tensors(value, depth=2)
    )
    what = f"what {type(error).__name__} was raised for"
    counted = (count_bad(tensor) for tensor in itertools.islice(tensors, _LOOKED_AT))
    return [Sink("operation", what, None, nan, 0, 0) for nan, _, _ in counted if nan][:1]


def _frames(error: BaseException) -> list[FrameType]:
    """The user's frames within the step, outermost first."""
    frames: list[FrameType] = []
    for frame in _all_frames(error):
        code = frame.f_code
        if code.co_name == CALL_STEP and kind_of(code.co_filename) == "own":
            frames = []
        elif is_user_code(code.co_filename):
            frames.append(frame)
    return frames


def _all_frames(error: BaseException) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next
