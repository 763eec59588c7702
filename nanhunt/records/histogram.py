"""A tensor's numbers sorted by sign and power of two: a record of counts, without the tensor."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import NamedTuple


class Bin(NamedTuple):
    """How many numbers x have 2**exponent <= |x| < 2**(exponent + 1).

    Attributes:
        exponent: k.
        negative, positive: counts by sign.
    """

    exponent: int
    negative: int
    positive: int


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Counts of a tensor's numbers; a complex element counts as two, its parts.

    Attributes:
        dtype: of the tensor, without `torch.`.
        numel: how many numbers there are.
        bins: normal numbers by power of two, ascending; empty bins are left out.
        nan, posinf, neginf, zeros, subnormal: exact counts; subnormal numbers of the
            tensor's own dtype stand in no bin.
        low, high: smallest and largest finite number, exact; None when there is none.
        binned: how many of the numbers were sorted into bins, evenly spaced.
        tensors: how many tensors were added up (calls of the module in one step).
        note: why nothing was counted, if so.
    """

    dtype: str
    numel: int
    bins: tuple[Bin, ...] = ()
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    zeros: int = 0
    subnormal: int = 0
    low: float | None = None
    high: float | None = None
    binned: int = 0
    tensors: int = 1
    note: str = ""

    @property
    def sampled(self) -> bool:
        """Whether the bins hold a sample only."""
        return self.binned < self.numel

    @property
    def absmax(self) -> float | None:
        """Largest finite magnitude."""
        if self.low is None or self.high is None:
            return None
        return max(-self.low, self.high)

    @property
    def nonzero(self) -> int:
        """Finite numbers other than zero."""
        return self.numel - self.zeros - self.nan - self.posinf - self.neginf

    @property
    def zero_share(self) -> float:
        """Share of zeros."""
        return self.zeros / self.numel if self.numel else 0.0

    @property
    def underflow(self) -> float:
        """Share of subnormal numbers in the finite numbers other than zero."""
        return self.subnormal / self.nonzero if self.nonzero else 0.0

    @property
    def bad(self) -> int:
        """NaN and infinities."""
        return self.nan + self.posinf + self.neginf

    def __add__(self, other: Histogram) -> Histogram:
        """The numbers of both; of two dtypes the first one is told."""
        negative, positive = Counter[int](), Counter[int]()
        for each in (*self.bins, *other.bins):
            negative[each.exponent] += each.negative
            positive[each.exponent] += each.positive
        lows = [low for low in (self.low, other.low) if low is not None]
        highs = [high for high in (self.high, other.high) if high is not None]
        return Histogram(
            dtype=self.dtype,
            numel=self.numel + other.numel,
            bins=tuple(
                Bin(k, negative[k], positive[k]) for k in sorted(set(negative) | set(positive))
            ),
            nan=self.nan + other.nan,
            posinf=self.posinf + other.posinf,
            neginf=self.neginf + other.neginf,
            zeros=self.zeros + other.zeros,
            subnormal=self.subnormal + other.subnormal,
            low=min(lows, default=None),
            high=max(highs, default=None),
            binned=self.binned + other.binned,
            tensors=self.tensors + other.tensors,
            note=self.note or other.note,
        )
