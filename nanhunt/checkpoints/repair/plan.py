"""What a repair changes: for each tensor or number the elements and their new values.

Only bad elements are touched, so that everything healthy keeps its bits: the bad channels of
running statistics (mean 0, variance 1, as `reset_running_stats` writes them), the bad elements
of an optimizer's state (0, as a fresh state has them) with the same elements of the moments
beside them, a scaler's scale. Weights only when that is asked for.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Iterator, Mapping

from torch import Tensor

from nanhunt.checkpoints.formats.contents import Entry, Scalar, Span, as_float
from nanhunt.checkpoints.judge.batch_norm import batch_count, is_bad_count
from nanhunt.checkpoints.judge.examine import ExaminedCheckpoint
from nanhunt.checkpoints.judge.judge import is_bad_scale
from nanhunt.checkpoints.judge.roles import (
    COUNT,
    MEAN,
    SECOND_MOMENTS,
    VARIANCE,
    leaf,
    shard,
    siblings,
)
from nanhunt.checkpoints.judge.scan import Scan, in_place, real_dtype
from nanhunt.checkpoints.repair.patches import AnyPatch, Condition, NumberPatch, Patch

_WHOLE = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4")  # opcodes of whole numbers
INITIAL_SCALE = 65536.0  # init_scale of torch.amp.GradScaler


def plan(
    examination: ExaminedCheckpoint,
    weights: bool = False,
    statistics: Mapping[str, Tensor] | None = None,
) -> list[AnyPatch]:
    """Everything that a repair changes, in the order of the file.

    Args:
        examination: the checkpoint.
        weights: whether elements of weights (and of buffers that cannot be reset) that are
            not finite become 0.
        statistics: running statistics computed from data, by key; written in full.
    """
    patches: dict[Span, AnyPatch] = {}
    parts = (
        _statistics(examination, statistics or {}),
        _optimizers(examination),
        _scales(examination),
        _weights(examination) if weights else (),
    )
    for part in parts:
        for patch in part:
            patches.setdefault(patch.span, patch)
    return [patches[span] for span in sorted(patches, key=lambda s: (str(s.file), s.start))]


def _patch(
    entry: Entry,
    value: float,
    where: list[tuple[Entry, Condition]],
    text: str,
    values: Tensor | None = None,
) -> Patch:
    assert entry.span is not None
    dtype = real_dtype(entry) or entry.dtype
    assert dtype is not None
    conditions = tuple(
        (other.span, real_dtype(other) or other.dtype, condition) for other, condition in where
    )
    return Patch(entry.key, entry.span, entry.record, dtype, value, conditions, text, values)  # type: ignore[arg-type]


# -- BatchNorm ----------------------------------------------------------------------------------


def _statistics(examination: ExaminedCheckpoint, fresh: Mapping[str, Tensor]) -> Iterator[Patch]:
    entries = examination.contents.entries
    for names in siblings(entries).values():
        layer = {n: (entries[i], examination.scans[i]) for n, i in names.items()}
        known = [
            layer[n][0] for n in (MEAN, VARIANCE, COUNT) if n in layer and in_place(layer[n][0])
        ]
        computed = [entry for entry in known if entry.key in fresh]
        if computed:
            for entry in computed:
                yield _patch(entry, 0.0, [], "computed anew from data", fresh[entry.key])
            continue
        yield from _reset_channels(layer, {leaf(entry.key) for entry in known})


def _reset_channels(layer: dict[str, tuple[Entry, Scan]], known: set[str]) -> Iterator[Patch]:
    conditions: dict[str, Condition] = {MEAN: "not finite", VARIANCE: "not finite or negative"}
    sick = []
    for name in sorted(known & set(conditions)):
        entry, scan = layer[name]
        negative = name == VARIANCE and scan.low is not None and scan.low < 0
        if scan.bad or negative:
            sick.append((entry, conditions[name]))
    both = MEAN in known and VARIANCE in known
    alike = both and _aligned(layer[MEAN][0], layer[VARIANCE][0])
    for name, value in ((MEAN, 0.0), (VARIANCE, 1.0)):
        if name in known:
            where = sick if alike else [pair for pair in sick if pair[0] is layer[name][0]]
            if where:
                yield _patch(layer[name][0], value, where, f"bad channels reset to {value:g}")
    count = batch_count(layer[COUNT][0]) if COUNT in known else None
    if count is not None and is_bad_count(count):
        yield _patch(layer[COUNT][0], 0.0, [], "reset to 0")


# -- optimizers ---------------------------------------------------------------------------------


def _optimizers(examination: ExaminedCheckpoint) -> Iterator[Patch]:
    """Bad elements and the same ones of the moments beside them, so that they start together."""
    entries, roles = examination.contents.entries, examination.roles
    for names in siblings(entries).values():
        state = {
            n: (entries[i], examination.scans[i])
            for n, i in names.items()
            if roles.of(entries[i]) == "optimizer"
            and not roles.is_setting(entries[i])
            and in_place(entries[i])
            and real_dtype(entries[i]) is not None
        }
        sick = {
            name: condition for name, pair in state.items() if (condition := _sick(name, pair[1]))
        }
        if "step" in sick:  # all of it starts anew, as the bias correction does
            for entry, _ in state.values():
                yield _patch(entry, 0.0, [], "reset to 0 with the count of updates")
            continue
        for entry, _ in state.values():
            where = [
                (state[name][0], condition)
                for name, condition in sick.items()
                if _aligned(state[name][0], entry)
            ]
            if where and leaf(entry.key) != "step":
                yield _patch(entry, 0.0, where, "bad elements reset to 0")


def _aligned(one: Entry, other: Entry) -> bool:
    """Whether the same position in memory is the same element in both."""
    if one is other:
        return True
    plain = real_dtype(one) == one.dtype and real_dtype(other) == other.dtype
    places = [(entry.shape, entry.stride, shard(entry.key)) for entry in (one, other)]
    return plain and places[0] == places[1]


def _sick(name: str, scan: Scan) -> Condition | None:
    low = scan.low or 0.0
    if leaf(name) in {*SECOND_MOMENTS, "step"} and low < 0:
        return "not finite or negative"
    return "not finite" if scan.bad else None


# -- weights ------------------------------------------------------------------------------------


def _weights(examination: ExaminedCheckpoint) -> Iterator[Patch]:
    sick = {p.key for p in examination.problems if p.kind == "not_finite"}
    for entry in examination.contents.entries:
        if entry.key not in sick or examination.roles.of(entry) == "optimizer":
            continue
        if leaf(entry.key) not in (MEAN, VARIANCE) and in_place(entry):
            yield _patch(entry, 0.0, [(entry, "not finite")], "elements not finite set to 0")


# -- loss scales --------------------------------------------------------------------------------


def _scales(examination: ExaminedCheckpoint) -> Iterator[NumberPatch]:
    """Bad scales, found in the pickled stream by their name and their value."""
    streams: dict[Span, list[Scalar]] = {}
    for scalar in examination.contents.scalars:
        if scalar.pickle is not None and scalar.keys[-1:] == ("scale",):
            streams.setdefault(scalar.pickle, []).append(scalar)
    for span, scalars in streams.items():
        if not any(map(examination.roles.is_loss_scale, scalars)):
            continue
        places = list(_numbers(span.read(), "scale"))
        if [_bits(value) for _, value in places] != [_bits(s.value) for s in scalars]:
            continue  # written in another way than by GradScaler.state_dict
        for (place, _), scalar in zip(places, scalars, strict=True):
            if place is None or not examination.roles.is_loss_scale(scalar):
                continue
            if is_bad_scale(scalar.value):
                where = Span(span.file, span.start + place, 8)
                text = f"reset to {INITIAL_SCALE:,.0f}"
                yield NumberPatch(scalar.key, where, scalar.record, INITIAL_SCALE, text)


def _bits(value: float) -> bytes:
    """The number as it is stored; NaN equals itself so."""
    return struct.pack(">d", value)


def _numbers(stream: bytes, name: str) -> Iterator[tuple[int | None, float]]:
    """The numbers that follow a name, or the only one there is, with the places of floats.

    Reads the opcodes of `pickle` without executing any.
    """
    memo: dict[int, object] = {}
    before: object = None
    alone = True
    for opcode, argument, position in pickletools.genops(stream):
        assert position is not None
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            memo[int(argument)] = before  # type: ignore[arg-type]
            continue
        if isinstance(argument, int | float) and (before == name or alone):
            if opcode.name == "BINFLOAT":
                yield position + 1, float(argument)
            elif opcode.name in _WHOLE:
                yield None, as_float(argument)
        if opcode.name in ("BINGET", "LONG_BINGET"):
            before = memo.get(int(argument))  # type: ignore[arg-type]
        elif opcode.name != "PROTO":
            before = argument if opcode.name == "BINUNICODE" else None
        alone = alone and opcode.name == "PROTO"
