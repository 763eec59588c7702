"""Turns values of any kind into what `torch.load(weights_only=True)` reads back."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Not `tensors.trees`: a batch may hold itself or be deep, and what cannot be kept is told by its
# place; pytree has neither an end for the first nor a place for the second.
_DEPTH = 12
_AS_THEY_ARE = (bool, int, float, complex, str, bytes, type(None))


def plain(
    value: Any,
    left_out: list[str],
    depth: int = 0,
    where: str = "",
    around: frozenset[int] = frozenset(),
) -> Any:
    """Converts a value; what cannot be converted becomes its type's name.

    Tensors come to the CPU, without their gradients and no larger than themselves; arrays of
    NumPy become tensors, named tuples become tuples, dataclasses and mappings dicts. What holds
    itself (a tree whose nodes know their parent) is left out where it comes again.

    Args:
        value: anything.
        left_out: places that could not be kept are appended.
        depth: how deep it lies.
        where: the place, for `left_out`.
        around: ids of what it lies within.
    """
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, Tensor):
        return compact(value)
    array = as_tensor(value)
    if array is not None:
        return array
    if depth < _DEPTH and id(value) not in around:
        around |= {id(value)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {
                plain(key, left_out, depth + 1, where): plain(
                    item, left_out, depth + 1, f"{where}[{key!r}]", around
                )
                for key, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            items = [
                plain(v, left_out, depth + 1, f"{where}[{i}]", around) for i, v in enumerate(value)
            ]
            return tuple(items) if isinstance(value, tuple) else items
    for kind in (bool, int, float, str):  # subclasses
        if isinstance(value, kind):
            return kind(value)
    left_out.append(f"{where}: {type(value).__name__}")
    return f"<{type(value).__name__}>"


def compact(tensor: Tensor) -> Tensor:
    """A copy on the CPU that holds no more memory than the values take."""
    with torch.no_grad():
        copy = tensor.detach()
        return copy.cpu() if copy.device.type != "cpu" else copy.clone()


def as_tensor(value: Any) -> Tensor | None:
    """An array or scalar of NumPy as a tensor, where torch has its type; else None."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic):
        return None
    try:
        return torch.from_numpy(numpy.array(value, order="C"))
    except TypeError:
        return None
