"""Turns what was read of a checkpoint into problems: one function per kind of thing in it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch

from nanhunt.checkpoints.formats.contents import Contents, Entry, Scalar, ZipMember
from nanhunt.checkpoints.judge.batch_norm import judge_statistics
from nanhunt.checkpoints.judge.outliers import outliers
from nanhunt.checkpoints.judge.problem import problem
from nanhunt.checkpoints.judge.roles import SECOND_MOMENTS, STATISTICS, Roles, leaf
from nanhunt.checkpoints.judge.scan import Scan, in_place
from nanhunt.core.tensors.dtypes import largest_number
from nanhunt.records.diagnosis import Problem

_EARLIER = "take an earlier file; `nanhunt doctor FOLDER` finds the last healthy one of a series"
_SET_LATER = "set it after loading"
_ORDER = {"critical": 0, "warning": 1, "info": 2}
_ROLES = {"weight": 0, "buffer": 1, "optimizer": 2, "scaler": 3, "file": 4}
_SMALLEST = 2.0**-126  # of float32; the inverse of anything below half of it is Inf


def judge(
    contents: Contents, scans: list[Scan], checksums: dict[ZipMember, int], roles: Roles
) -> list[Problem]:
    """All problems of a checkpoint, worst first; weights before buffers before the rest."""
    pairs = list(zip(contents.entries, scans, strict=True))
    found: list[Problem] = [*_files(contents), *_checksums(contents, checksums)]
    for entry, scan in pairs:
        if roles.is_setting(entry):
            found += _setting(contents, entry, scan)
        else:
            found += _values(contents, entry, scan, roles)
    found += judge_statistics(contents, scans)
    found += outliers(contents, [pair for pair in pairs if roles.of(pair[0]) == "weight"])
    for scalar in contents.scalars:
        found += _number(contents, scalar, roles)
    return sorted(found, key=lambda p: (_ORDER[p.severity], _ROLES[p.role]))


# -- files ------------------------------------------------------------------------------------


def _files(contents: Contents) -> Iterator[Problem]:
    for name in contents.missing:
        text = f"{name} is named by the index and is not there"
        yield Problem(
            "file_missing", "critical", "file", "", text, name, advice="copy it here again"
        )
    for text in contents.damage:
        yield Problem("file_damaged", "critical", "file", "", text)
    for text in contents.refused:
        yield Problem("file_refused", "warning", "file", "", text)


def _checksums(contents: Contents, checksums: dict[ZipMember, int]) -> Iterator[Problem]:
    keys = {entry.record: entry.key for entry in reversed(contents.entries)}
    for record, crc in checksums.items():
        if record.crc is not None and record.crc != crc:
            yield Problem(
                "checksum",
                "critical",
                "file",
                keys.get(record, record.name),
                "the bytes were changed after they were saved: the file's own checksum differs",
                contents.file_of(record.span),
                advice="copy the file again from where it came, or take an earlier one",
            )


# -- tensors ----------------------------------------------------------------------------------


def _values(contents: Contents, entry: Entry, scan: Scan, roles: Roles) -> Iterator[Problem]:
    role = roles.of(entry)
    tell = functools.partial(problem, contents, entry, scan, role)
    statistic = leaf(entry.key) in STATISTICS  # these have a judge of their own
    # Nobody writes a mask into a moment, a statistic or a parameter, but they may begin as zeros.
    trained = role == "optimizer" or entry.key in roles.parameters
    if scan.bad and _is_mask(scan) and not trained and not statistic:
        yield tell("mask", "info", "-Inf and zeros alone: a mask")
    elif scan.bad and not statistic:
        yield tell("not_finite", "critical", *_not_finite(entry, role))
    if role == "optimizer":
        yield from _optimizer(contents, entry, scan)
    else:
        yield from _range(contents, entry, scan, role)
    if entry.dtype == torch.complex32:
        yield tell("complex_half", "info", "stored as ComplexHalf, which few operations can take")


def _setting(contents: Contents, entry: Entry, scan: Scan) -> Iterator[Problem]:
    """An option that is a tensor, as the learning rate of a capturable optimizer may be."""
    if scan.bad:
        text = "an option of the optimizer is not finite"
        kind, severity, role = "optimizer_setting", "critical", "optimizer"
        yield problem(contents, entry, scan, role, kind, severity, text, advice=_SET_LATER)


def _is_mask(scan: Scan) -> bool:
    return not scan.nan and not scan.posinf and scan.low == scan.high == 0


def _not_finite(entry: Entry, role: str) -> tuple[str, str, str]:
    """The sentence, the repair and the advice for NaN or Inf in a tensor."""
    if role == "optimizer":
        text = "optimizer state is not finite: these elements get no sensible update again"
        if leaf(entry.key) in SECOND_MOMENTS:
            text = "a second moment is not finite: these elements get an update of 0, or NaN"
        return text, "bad elements reset to 0" if in_place(entry) else "", ""
    if role == "buffer":
        return "a buffer is not finite", "", f"compute it anew, or {_EARLIER}"
    return "a weight is not finite", "", _EARLIER


def _optimizer(contents: Contents, entry: Entry, scan: Scan) -> Iterator[Problem]:
    tell = functools.partial(problem, contents, entry, scan, "optimizer")
    name, low = leaf(entry.key), scan.low or 0.0
    repair = "bad elements reset to 0" if in_place(entry) else ""
    if name in SECOND_MOMENTS and low < 0:
        text = f"a second moment is negative (down to {low:.3g}): its root is NaN"
        yield tell("second_moment_negative", "critical", text, repair)
    if name == "step" and low < 0:
        yield tell("optimizer_step", "critical", f"the count of updates is {low:.3g}", repair)


def _range(contents: Contents, entry: Entry, scan: Scan, role: str) -> Iterator[Problem]:
    if entry.dtype is None or entry.dtype in (torch.float16, torch.complex32):
        return
    limit = ""
    if scan.absmax > largest_number(torch.float32):
        limit = "float32 ends at 3.4e+38"
    elif scan.absmax > largest_number(torch.float16):
        limit = "float16 ends at 65,504"
    if limit:
        text = f"values up to {scan.absmax:.3g}: {limit}"
        advice = "do not cast it; keep what holds it out of half precision"
        yield problem(contents, entry, scan, role, "beyond_dtype", "warning", text, advice=advice)


# -- numbers ----------------------------------------------------------------------------------


def _number(contents: Contents, scalar: Scalar, roles: Roles) -> Iterator[Problem]:
    file, value = contents.file_of(scalar.pickle), scalar.value
    if roles.is_setting(scalar) and not math.isfinite(value):
        text = f"an option of the optimizer is {value}"
        yield Problem(
            "optimizer_setting",
            "critical",
            "optimizer",
            scalar.key,
            text,
            file,
            advice=_SET_LATER,
        )
    if roles.is_step(scalar) and not value >= 0:
        text = f"the count of updates is {value}"
        yield Problem("optimizer_step", "critical", "optimizer", scalar.key, text, file)
    if roles.is_loss_scale(scalar):
        yield from _loss_scale(scalar, file)


def is_bad_scale(value: float) -> bool:
    """Whether a GradScaler cannot work with this scale."""
    return not (math.isfinite(value) and value > _SMALLEST / 2)


def _loss_scale(scalar: Scalar, file: str) -> Iterator[Problem]:
    if is_bad_scale(scalar.value):
        text = f"the loss scale is {scalar.value:.3g}: every gradient becomes NaN, Inf or 0"
        repair = "reset to 65,536, where a GradScaler starts" if scalar.pickle else ""
        yield Problem("loss_scale", "critical", "scaler", scalar.key, text, file, repair=repair)
    elif scalar.value < 1:
        text = f"the loss scale has fallen to {scalar.value:.3g}: gradients overflow at any scale"
        yield Problem("loss_scale", "warning", "scaler", scalar.key, text, file)
