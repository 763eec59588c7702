"""Judges BatchNorm's running statistics, which `eval()` and a resumed training read."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterator

import torch

from nanhunt.checkpoints.formats.contents import Contents, Entry
from nanhunt.checkpoints.judge.problem import problem
from nanhunt.checkpoints.judge.roles import COUNT, MEAN, VARIANCE, siblings
from nanhunt.checkpoints.judge.scan import Scan, in_place, read_values
from nanhunt.core.tensors.dtypes import dtype_name
from nanhunt.records.diagnosis import Problem

_RESET = "bad channels reset to mean 0 and variance 1"
_RECALIBRATE = (
    "compute them anew from data (nanhunt.recalibrate): a channel that was reset is finite, "
    "and still wrong"
)


_POISONED = "running statistics are not finite: training goes on without them, eval() reads them"


def judge_statistics(contents: Contents, scans: list[Scan]) -> Iterator[Problem]:
    """Problems of every layer that keeps running statistics."""
    counts: list[tuple[int, Entry, Scan]] = []
    for names in siblings(contents.entries).values():
        layer = {n: (contents.entries[i], scans[i]) for n, i in names.items()}
        for name in (MEAN, VARIANCE):
            if name in layer:
                yield from _statistic(contents, name, *layer[name])
        if COUNT in layer:
            count = batch_count(layer[COUNT][0])
            if count is not None:
                yield from _counted(contents, count, layer)
                if math.isfinite(count):
                    counts.append((int(count), *layer[COUNT]))
    yield from _unequal(contents, counts)


def _statistic(contents: Contents, name: str, entry: Entry, scan: Scan) -> Iterator[Problem]:
    tell = functools.partial(problem, contents, entry, scan, "buffer")
    repair = _RESET if in_place(entry) else ""
    if scan.bad:
        yield tell("not_finite", "critical", _POISONED, repair, _RECALIBRATE)
    if name == VARIANCE and scan.low is not None and scan.low < 0:
        text = f"a running variance is negative (down to {scan.low:.3g}): its root is NaN in eval()"
        yield tell("variance_negative", "critical", text, repair, _RECALIBRATE)
    elif name == VARIANCE and scan.low == 0:
        zeros = int((read_values(entry) == 0).sum())
        text = f"{zeros:,} of {entry.numel:,} running variances are 0: these channels never vary"
        yield tell("variance_zero", "warning", text)
    if entry.dtype == torch.float16:
        text = "running statistics in float16 overflow from 65,504 on"
        advice = "keep BatchNorm in float32, as autocast does"
        yield tell("statistics_in_half", "warning", text, advice=advice)


def batch_count(entry: Entry) -> float | None:
    """The number of batches as it is stored; None when it is no single real number."""
    if entry.dtype is None or entry.dtype.is_complex or entry.numel != 1:
        return None
    value = entry.tensor
    if value is None and entry.span is not None:
        raw = bytearray(entry.span.read())
        value = torch.frombuffer(raw, dtype=entry.dtype) if raw else None
    if value is None or value.is_meta or value.layout != torch.strided:
        return None
    try:
        return value.item()
    except NotImplementedError:  # dtypes without numbers, such as torch.bits8
        return None


def is_bad_count(count: float) -> bool:
    """Whether no number of batches can be that."""
    return not 0 <= count < math.inf


def _counted(
    contents: Contents, count: float, layer: dict[str, tuple[Entry, Scan]]
) -> Iterator[Problem]:
    entry = layer[COUNT][0]
    tell = functools.partial(problem, contents, *layer[COUNT], "buffer", "batch_count")
    if entry.dtype is not None and entry.dtype.is_floating_point:
        text = f"counts batches in {dtype_name(entry.dtype)}: written by .half() or a cast of all"
        yield tell("info", text)
    if is_bad_count(count):
        yield tell("warning", f"counts {count:,} batches", "reset to 0" if in_place(entry) else "")
        return
    if MEAN not in layer or VARIANCE not in layer:
        return
    mean, variance = layer[MEAN][1], layer[VARIANCE][1]
    fresh = mean.low == mean.high == 0 and variance.low == variance.high == 1
    if mean.bad or variance.bad:
        return
    if count > 0 and fresh:
        text = f"counts {count:,} batches, but the statistics are as at the start: reset, or frozen"
        yield tell("info", text)
    if count == 0 and not fresh:
        text = "counts no batch, but the statistics have moved: copied in from elsewhere"
        yield tell("info", text)


def _unequal(contents: Contents, counts: list[tuple[int, Entry, Scan]]) -> Iterator[Problem]:
    """Layers that ran less often than the others: at most a quarter, or nothing is usual."""
    if not counts:
        return
    usual = statistics.mode(count for count, _, _ in counts)
    others = [item for item in counts if item[0] != usual]
    if len(others) <= len(counts) // 4:
        for count, entry, scan in others:
            text = f"counts {count:,} batches where the other layers count {usual:,}"
            yield problem(contents, entry, scan, "buffer", "batch_count", "info", text)
