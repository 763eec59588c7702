"""The arguments of an aten operation by its schema: which tensors, which are written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from nanhunt.core.observe import op_table
from nanhunt.torch_private import schema


class Argument(NamedTuple):
    """A tensor among the arguments: its name in the schema, index in a list, position."""

    name: str
    item: int | None
    position: int
    tensor: Tensor


def named_tensors(func: Any, args: Any, kwargs: Any) -> Iterator[Argument]:
    """Yields the tensors among the arguments, also those in lists."""
    for position, name, value in _arguments(func, args, kwargs):
        for item, tensor in flat(value):
            yield Argument(name, item, position, tensor)


def scalars(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """The numbers, flags and lists of numbers among the arguments, defaults left out."""
    found = {}
    for _, name, value in _arguments(func, args, kwargs):
        plain = isinstance(value, bool | int | float)
        if plain or (isinstance(value, list) and all(isinstance(n, int) for n in value)):
            found[name] = value
    return found


def _arguments(func: Any, args: Any, kwargs: Any) -> Iterator[tuple[int, str, Any]]:
    for position, argument in enumerate(schema(func).arguments):
        if position < len(args):
            yield position, argument.name, args[position]
        elif argument.name in kwargs:
            yield position, argument.name, kwargs[argument.name]


def flat(value: Any) -> Iterator[tuple[int | None, Tensor]]:
    """Yields (index in the list or None, tensor).

    The arguments of an operation are tensors and lists of them at most, and every operation of a
    step comes through here: `tensors.trees` would only take longer.
    """
    if isinstance(value, Tensor):
        yield None, value
    elif isinstance(value, list | tuple):
        for item, element in enumerate(value):
            if isinstance(element, Tensor):
                yield item, element
            elif isinstance(element, list | tuple):
                yield from ((item, tensor) for _, tensor in flat(element))


_WRITTEN: dict[Any, frozenset[int]] = {}


def written_positions(func: Any) -> frozenset[int]:
    """Positions of the arguments that an operation writes."""
    if func not in _WRITTEN:
        hidden = op_table.HIDDEN_WRITES.get(op_table.packet(str(func)), ())
        _WRITTEN[func] = frozenset(hidden) | frozenset(
            position
            for position, argument in enumerate(schema(func).arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        )
    return _WRITTEN[func]


def is_view(func: Any) -> bool:
    """Whether an operation only looks at the memory of its input."""
    returns = schema(func).returns
    return bool(not written_positions(func) and returns and returns[0].alias_info is not None)


def has_bad_scalar(args: Any) -> bool:
    """Whether a number among the arguments is not finite."""
    return any(isinstance(value, float) and not math.isfinite(value) for value in args)


def training_flag(packet: str, args: Any) -> bool:
    """Whether a batch norm runs in training mode."""
    position = op_table.BATCH_NORMS.get(packet, (0, 0, None))[2]
    return packet in op_table.BATCH_NORMS and (position is None or bool(args[position]))
