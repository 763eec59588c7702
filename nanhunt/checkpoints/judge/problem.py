"""Makes a `Problem` of a tensor and of what was counted in it."""

from __future__ import annotations

from nanhunt.checkpoints.formats.contents import Contents, Entry
from nanhunt.checkpoints.judge.scan import Scan, index_of
from nanhunt.core.tensors.dtypes import dtype_name
from nanhunt.records.diagnosis import Problem


def problem(
    contents: Contents,
    entry: Entry,
    scan: Scan,
    role: str,
    kind: str,
    severity: str,
    text: str,
    repair: str = "",
    advice: str = "",
) -> Problem:
    """A problem of one tensor; counts and places are those of its bad elements."""
    return Problem(
        kind,
        severity,
        role,
        entry.key,
        text,
        contents.file_of(entry.span),
        entry.shape,
        dtype_name(entry.dtype) if entry.dtype else "",
        scan.nan,
        scan.posinf,
        scan.neginf,
        tuple(index_of(entry, place) for place in scan.places),
        repair,
        advice,
    )
