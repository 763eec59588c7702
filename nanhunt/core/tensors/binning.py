"""Histograms made where the tensor lies: only counts are copied to the host.

A floating-point number's bits begin with its sign and its exponent. Shifted to the right they
are the number of its bin, so that one pass of integer counting sorts a tensor by powers of
two; NaN and infinities have bins of their own there and can never disturb the others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nanhunt.core.tensors.dtypes import dtype_name, real_part
from nanhunt.core.tensors.stats import real_values, tensor_stats
from nanhunt.records.histogram import Bin, Histogram
from nanhunt.records.report import TensorStats
from nanhunt.torch_private import dispatch_modes_off, function_modes_off

SAMPLED_BEYOND = 1 << 14  # numbers; of more, evenly spaced runs are sorted into bins
_RUN = 16  # numbers side by side: a cache line of float32

SMALL = 2048  # numbers; tensors of no more are copied, and counted together after the step
_CACHED = 1 << 17  # numbers that are counted at a time
_COLUMNS = 1024  # 64-bit sums side by side while ones are counted
_TOGETHER = 1024  # tensors that are read in one go

# Extra counts after the bins.
_EXTRAS = ("nan", "posinf", "neginf", "zeros", "subnormal", "low", "high")


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How a dtype's bits are laid out (IEEE 754; bfloat16 as float32 cut in half)."""

    integer: torch.dtype
    mantissa: int
    exponent: int

    @property
    def field(self) -> int:
        return (1 << self.exponent) - 1

    @property
    def bins(self) -> int:
        return 2 << self.exponent

    @property
    def bias(self) -> int:
        return self.field >> 1


_LAYOUTS = {
    torch.float16: _Layout(torch.int16, 10, 5),
    torch.bfloat16: _Layout(torch.int16, 7, 8),
    torch.float32: _Layout(torch.int32, 23, 8),
    torch.float64: _Layout(torch.int64, 52, 11),
}


@dataclasses.dataclass(frozen=True)
class Counted:
    """One tensor's numbers, counted or about to be, still on their device.

    Attributes:
        counts: int64, one per bin and then the extras; extremes are float64 bits. None for a
            small tensor, which is counted together with others when it is read.
        values: a copy of a small tensor's numbers, else None.
        layout: of the numbers.
        dtype: of the tensor.
        numel: how many numbers it has.
        binned: how many of them are sorted into bins.
    """

    counts: Tensor | None
    values: Tensor | None
    layout: _Layout
    dtype: torch.dtype
    numel: int
    binned: int


# Memory to work in, by dtype, kept from tensor to tensor: on the CPU the first touch of fresh
# pages takes longer than the counting. Whoever counts takes it out, so no two threads share it.
Scratch = dict[torch.dtype, Tensor]


@torch.no_grad()
def count(
    tensor: Tensor, sampled_beyond: int = SAMPLED_BEYOND, scratch: Scratch | None = None
) -> Counted | None:
    """Counts a tensor's numbers on its device, without synchronising an accelerator.

    Args:
        tensor: of any floating-point or complex dtype, shape and layout that
            `stats.real_values` can read. float8 numbers are counted as float32.
        sampled_beyond: how many numbers are sorted into bins at most. Extremes and the counts
            of NaN, infinities, zeros and subnormals are of all numbers in any case.
        scratch: kept by the caller between calls, at most 4 MiB.

    Returns:
        None when there are no numbers to look at.
    """
    with function_modes_off(), dispatch_modes_off():
        values = real_values(tensor)
        if values is None:
            return None
        values = values.reshape(-1)
        layout = _LAYOUTS[values.dtype]
        numel = values.numel()
        if numel <= min(SMALL, sampled_beyond):
            return Counted(None, values.clone(), layout, tensor.dtype, numel, numel)
        room = {} if scratch is None else scratch
        extras = _extras(values, tensor.dtype, room)  # first: its passes bring everything near
        part = _sampled(values, sampled_beyond)
        counts = torch.cat([_bin_counts(_keys(part, layout), layout), extras])
        return Counted(counts, None, layout, tensor.dtype, numel, part.numel())


@torch.no_grad()
def read(counted: Sequence[Counted]) -> list[Histogram]:
    """Copies counts to the host and makes records of them.

    One transfer per device and layout of numbers; the step's one synchronisation for them.
    """
    found: dict[int, Histogram] = {}
    with function_modes_off(), dispatch_modes_off():
        for small in (True, False):
            for places in _alike(counted, small):
                for first in range(0, len(places), _TOGETHER):
                    part = places[first : first + _TOGETHER]
                    chosen = [counted[i] for i in part]
                    rows = _counted_together(chosen) if small else _stacked(chosen)
                    found.update(zip(part, _records(chosen, rows.cpu()), strict=True))
    return [found[i] for i in range(len(counted))]


def histogram(tensor: Tensor, sampled_beyond: int = SAMPLED_BEYOND) -> Histogram:
    """Counts one tensor and reads the result."""
    counted = count(tensor, sampled_beyond)
    if counted is None:
        kind = dtype_name(tensor.dtype)
        return Histogram(kind, 0, note=f"no floating-point values can be read ({kind})")
    return read([counted])[0]


def pictured(tensor: Tensor, name: str) -> TensorStats:
    """Statistics of a tensor with its histogram, where it has one."""
    stats = tensor_stats(tensor, name)
    try:
        found = histogram(tensor)
    except RuntimeError:  # no room left, or no such operation here: the numbers stay without it
        return stats
    return stats if found.note else dataclasses.replace(stats, histogram=found)


def _alike(counted: Sequence[Counted], small: bool) -> list[list[int]]:
    """Places of those that can be read in one go: small or not, of one layout on one device."""
    groups: dict[Any, list[int]] = {}
    for place, each in enumerate(counted):
        held = each.values if small else each.counts
        if held is not None:
            groups.setdefault((held.device, each.layout), []).append(place)
    return list(groups.values())


def _sampled(values: Tensor, most: int) -> Tensor:
    """At most so many numbers, in runs spread evenly over all of them."""
    if values.numel() <= most:
        return values
    length = min(_RUN, most)
    runs = values.numel() // length
    every = -(-runs // (most // length))
    return values[: runs * length].view(runs, length)[::every].reshape(-1)


def _keys(values: Tensor, layout: _Layout) -> Tensor:
    """The number of each value's bin: its sign and exponent."""
    return (values.view(layout.integer) >> layout.mantissa) & (layout.bins - 1)


def _bin_counts(keys: Tensor, layout: _Layout) -> Tensor:
    if keys.device.type == "cpu":
        return torch.bincount(keys, minlength=layout.bins)
    # `bincount` waits for an accelerator to learn the largest key; a fixed range does not.
    bins = layout.bins
    return torch.histc(keys.to(torch.float32), bins=bins, min=0, max=bins).to(torch.int64)


def _extras(values: Tensor, dtype: torch.dtype, scratch: Scratch) -> Tensor:
    """Exact counts and extremes of many numbers, in the order of `_EXTRAS`."""
    low, high = torch.aminmax(values)
    counts: list[Tensor | int] = [0, 0, 0]
    # On the CPU a look costs nothing; an accelerator would have to be waited for.
    here = values.device.type == "cpu"
    if not (here and math.isfinite(low) and math.isfinite(high)):
        counts = [torch.count_nonzero(test) for test in _bad(values)]
        good = torch.isfinite(values)
        low = torch.where(good, values, math.inf).amin()
        high = torch.where(good, values, -math.inf).amax()
    nonzero, normal = _count_normal(values, scratch)  # NaN and infinities among them
    if dtype.itemsize == 1:  # float8, counted as float32
        normal = torch.count_nonzero(~(values.abs() < _smallest_normal(dtype)))
    counts += [values.numel() - nonzero, nonzero - normal]
    if here:
        exact = torch.tensor([int(each) for each in counts])
        ends = torch.tensor([float(low), float(high)], dtype=torch.float64)
    else:
        exact = torch.stack([each for each in counts if isinstance(each, Tensor)])
        ends = torch.stack([low.double(), high.double()])
    return torch.cat([exact, ends.view(torch.int64)])


def _count_normal(values: Tensor, scratch: Scratch) -> tuple[Tensor | int, Tensor | int]:
    """How many numbers are not zero, and how many neither zero nor subnormal.

    On the CPU `count_nonzero` takes 4.5 ns a number on one core. Here the bits are looked at
    as long as they are in the cache: most tensors hold no zero at all, which one minimum tells.
    """
    layout = _LAYOUTS[values.dtype]
    bits = values.view(layout.integer)
    unsigned, least = torch.iinfo(layout.integer).max, 1 << layout.mantissa
    if bits.device.type != "cpu":
        field = layout.field << layout.mantissa
        return torch.count_nonzero(bits & unsigned), torch.count_nonzero(bits & field)
    room = scratch.pop(bits.dtype, None)
    room = torch.empty(2, _CACHED, dtype=bits.dtype) if room is None else room
    nonzero = normal = 0
    for part in bits.split(_CACHED):
        magnitude, ones = room[:, : part.numel()]
        torch.bitwise_and(part, unsigned, out=magnitude)
        if magnitude.min().item() >= least:
            nonzero, normal = nonzero + part.numel(), normal + part.numel()
            continue
        nonzero += _sum_of_ones(torch.clamp(magnitude, max=1, out=ones))
        normal += _sum_of_ones(magnitude.bitwise_right_shift_(layout.mantissa).clamp_(max=1))
    scratch[bits.dtype] = room
    return nonzero, normal


def _sum_of_ones(ones: Tensor) -> int:
    """Sums at most `_CACHED` ones, without making each of them wider first."""
    if ones.itemsize >= 4:
        return int(torch.sum(ones, dtype=ones.dtype).item())
    if ones.numel() < _CACHED:
        return int(ones.sum().item())
    # Several in each 64-bit integer, at most 2**15 in each lane of it.
    return int(ones.view(torch.int64).view(-1, _COLUMNS).sum(0).view(ones.dtype).sum().item())


def _stacked(counted: Sequence[Counted]) -> Tensor:
    return torch.stack([each.counts for each in counted if each.counts is not None])


def _counted_together(counted: Sequence[Counted]) -> Tensor:
    """Counts many small tensors of one layout at once; a row for each, as in `Counted.counts`."""
    layout, rows = counted[0].layout, len(counted)
    values = torch.cat([each.values for each in counted if each.values is not None])
    home = values.device
    owner = torch.repeat_interleave(
        torch.arange(rows), torch.tensor([each.numel for each in counted])
    ).to(home)
    places = owner * layout.bins + _keys(values, layout)
    bins = torch.bincount(places, minlength=rows * layout.bins).view(rows, -1)
    limits = torch.tensor([_smallest_normal(each.dtype) for each in counted], dtype=torch.float64)
    small = values.abs() < limits.to(home, values.dtype)[owner]
    zero, good = values == 0, torch.isfinite(values)
    exact = torch.zeros(len(_EXTRAS) - 2, rows, dtype=torch.int64, device=home)
    for line, test in zip(exact, (*_bad(values), zero, small & ~zero), strict=True):
        line.index_add_(0, owner, test.to(torch.int64))
    ends = torch.tensor([[math.inf], [-math.inf]], dtype=torch.float64, device=home).repeat(1, rows)
    wide = values.double()
    ends[0].scatter_reduce_(0, owner, torch.where(good, wide, math.inf), "amin")
    ends[1].scatter_reduce_(0, owner, torch.where(good, wide, -math.inf), "amax")
    return torch.cat([bins, exact.T, ends.view(torch.int64).T], dim=1)


def _bad(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.isnan(values), values == math.inf, values == -math.inf


def _smallest_normal(dtype: torch.dtype) -> float:
    return torch.finfo(real_part(dtype)).smallest_normal


def _records(counted: Sequence[Counted], rows: Tensor) -> list[Histogram]:
    layout = counted[0].layout
    signed = rows[:, : layout.bins].view(len(counted), 2, -1)
    # Exponent field 0 holds zeros and subnormals, the last one infinities and NaN.
    normal = signed[:, :, 1 : layout.field]
    where = torch.nonzero(normal)
    filled: list[dict[int, list[int]]] = [{} for _ in counted]
    counts = normal[tuple(where.T)].tolist()
    for (row, sign, field), number in zip(where.tolist(), counts, strict=True):
        filled[row].setdefault(field + 1 - layout.bias, [0, 0])[sign] = number
    exact = rows[:, layout.bins : layout.bins + 5].tolist()
    ends = rows[:, layout.bins + 5 :].contiguous().view(torch.float64).tolist()
    return [_record(*each) for each in zip(counted, filled, exact, ends, strict=True)]


def _record(
    counted: Counted, bins: dict[int, list[int]], exact: list[int], ends: list[float]
) -> Histogram:
    low, high = ends
    least = round(math.log2(_smallest_normal(counted.dtype)))  # float8 was counted as float32
    kept = sorted((k, negative, positive) for k, (positive, negative) in bins.items() if k >= least)
    return Histogram(
        dtype=dtype_name(counted.dtype),
        numel=counted.numel,
        bins=tuple(Bin(*each) for each in kept),
        nan=exact[0],
        posinf=exact[1],
        neginf=exact[2],
        zeros=exact[3],
        subnormal=exact[4],
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        binned=counted.binned,
    )
