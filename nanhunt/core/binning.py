"""Histograms made where the tensor lies: only counts are copied to the host.

A floating-point number's bits begin with its sign and its exponent. Shifted to the right they
are the number of its bin, so that one pass of integer counting sorts a tensor by powers of
two; NaN and infinities have bins of their own there and can never disturb the others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from nanhunt.core.stats import dtype_name, real_values
from nanhunt.histogram import Bin, Histogram

SAMPLED_BEYOND = 1 << 22  # numbers; of more, evenly spaced ones are sorted into bins

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
    """Counts of one tensor, still on its device.

    Attributes:
        counts: int64, one per bin and then the extras; extremes are float64 bits.
        layout: of the numbers that were counted.
        dtype: of the tensor.
        numel: how many numbers it has.
        binned: how many of them were sorted into bins.
    """

    counts: Tensor
    layout: _Layout
    dtype: torch.dtype
    numel: int
    binned: int


@torch.no_grad()
def count(tensor: Tensor, sampled_beyond: int = SAMPLED_BEYOND) -> Counted | None:
    """Counts a tensor's numbers on its device, without synchronising an accelerator.

    Args:
        tensor: of any floating-point or complex dtype, shape and layout that
            `nanhunt.core.stats.real_values` can read. float8 numbers are counted as float32.
        sampled_beyond: how many numbers are sorted into bins at most. Extremes and the counts
            of NaN, infinities, zeros and subnormals are of all numbers in any case.

    Returns:
        None when there are no numbers to look at.
    """
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        values = real_values(tensor)
        if values is None:
            return None
        values = values.reshape(-1)
        layout = _LAYOUTS[values.dtype]
        numel = values.numel()
        every = max(1, -(-numel // sampled_beyond))
        part = values[::every]
        bits = part.contiguous().view(layout.integer)
        keys = (bits >> layout.mantissa) & (layout.bins - 1)
        return Counted(
            torch.cat([_bin_counts(keys, layout.bins), _extras(values, tensor.dtype)]),
            layout,
            tensor.dtype,
            numel,
            part.numel(),
        )


def read(counted: Sequence[Counted]) -> list[Histogram]:
    """Copies counts to the host, all in one transfer per device, and makes records of them."""
    found: dict[int, Histogram] = {}
    devices = {each.counts.device for each in counted}
    for device in devices:
        numbers = [i for i, each in enumerate(counted) if each.counts.device == device]
        merged = torch.cat([counted[i].counts for i in numbers]).cpu()
        sizes = [counted[i].counts.numel() for i in numbers]
        for i, counts in zip(numbers, merged.split(sizes), strict=True):
            found[i] = _record(counted[i], counts)
    return [found[i] for i in range(len(counted))]


def histogram(tensor: Tensor, sampled_beyond: int = SAMPLED_BEYOND) -> Histogram:
    """Counts one tensor and reads the result."""
    counted = count(tensor, sampled_beyond)
    if counted is None:
        kind = dtype_name(tensor.dtype)
        return Histogram(kind, 0, note=f"no floating-point values can be read ({kind})")
    return read([counted])[0]


def _bin_counts(keys: Tensor, bins: int) -> Tensor:
    if keys.device.type == "cpu":
        return torch.bincount(keys, minlength=bins)
    # `bincount` waits for an accelerator to learn the largest key; a fixed range does not.
    return torch.histc(keys.to(torch.float32), bins=bins, min=0, max=bins).to(torch.int64)


def _extras(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Exact counts and extremes, in the order of `_EXTRAS`."""
    home = values.device
    if not values.numel():
        nothing = torch.tensor([math.nan, math.nan], dtype=torch.float64, device=home)
        zeros = torch.zeros(len(_EXTRAS) - 2, dtype=torch.int64, device=home)
        return torch.cat([zeros, nothing.view(torch.int64)])
    finite = values
    low, high = torch.aminmax(values)
    counts = [torch.zeros((), dtype=torch.int64, device=home)] * 3
    # On the CPU a look costs nothing; an accelerator would have to be waited for.
    if home.type != "cpu" or not (math.isfinite(low.item()) and math.isfinite(high.item())):
        counts = [torch.count_nonzero(test) for test in _bad(values)]
        good = torch.isfinite(values)
        finite = torch.where(good, values, 0)
        low = torch.where(good, values, math.inf).amin()
        high = torch.where(good, values, -math.inf).amax()
    nonzero = torch.count_nonzero(finite)
    smallest = torch.finfo(_real(dtype)).smallest_normal
    normal = torch.count_nonzero(finite.abs() >= smallest)
    zeros = values.numel() - nonzero - sum(counts)
    exact = torch.stack([*counts, zeros, nonzero - normal])
    ends = torch.stack([low.double(), high.double()])
    return torch.cat([exact, ends.view(torch.int64)])


def _bad(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.isnan(values), values == math.inf, values == -math.inf


def _real(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype


def _record(counted: Counted, counts: Tensor) -> Histogram:
    layout = counted.layout
    nan, posinf, neginf, zeros, subnormal = counts[layout.bins : layout.bins + 5].tolist()
    low, high = counts[layout.bins + 5 :].view(torch.float64).tolist()
    signed = counts[: layout.bins].view(2, -1)
    # Exponent field 0 holds zeros and subnormals, the last one infinities and NaN.
    fields = torch.nonzero(signed.sum(0)[1 : layout.field]).flatten() + 1
    smallest = torch.finfo(_real(counted.dtype)).smallest_normal
    least = round(math.log2(smallest))  # of float8, which was counted as float32
    rows = zip(fields.tolist(), signed[1, fields].tolist(), signed[0, fields].tolist(), strict=True)
    bins = (Bin(field - layout.bias, negative, positive) for field, negative, positive in rows)
    return Histogram(
        dtype=dtype_name(counted.dtype),
        numel=counted.numel,
        bins=tuple(each for each in bins if each.exponent >= least),
        nan=nan,
        posinf=posinf,
        neginf=neginf,
        zeros=zeros,
        subnormal=subnormal,
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        binned=counted.binned,
    )
