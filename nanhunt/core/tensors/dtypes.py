"""The one vocabulary for dtypes: their names, their parts, and what counts as half precision."""

from __future__ import annotations

import torch

# Each dtype of half precision, and the dtype of single precision that holds the same numbers.
WIDER = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.complex32: torch.complex64,
}
# Half precision, complex numbers of halves (ComplexHalf) included.
HALVES = tuple(WIDER)
# Real numbers that lose range or digits when they are cast to half precision.
WIDE = (torch.float32, torch.float64)
# What holds whole numbers and truth values: a sum of them counts something.
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
# Several numbers in a byte: torch has no conversion for them.
PACKED = (torch.float4_e2m1fn_x2,)
# Integers in which the bits of a number of so many bytes are looked at.
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def dtype_name(dtype: torch.dtype | None) -> str:
    """The dtype without its `torch.` prefix, e.g. `float16`."""
    return str(dtype).removeprefix("torch.")


def real_part(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a complex number's parts; any other dtype is its own."""
    return dtype.to_real() if dtype.is_complex else dtype


def largest_number(dtype: torch.dtype) -> float:
    """The largest finite number of a dtype; of a complex one, of its parts."""
    return float(torch.finfo(real_part(dtype)).max)


# Every dtype by its name in a report or a condition, aliases such as `half` included.
NAMES = {name for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
# The same by what a `TensorStats` calls them.
HALF_NAMES = tuple(map(dtype_name, HALVES))
REAL_HALF_NAMES = tuple(dtype_name(dtype) for dtype in HALVES if not dtype.is_complex)
