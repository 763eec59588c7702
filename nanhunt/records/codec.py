"""Frozen records of numbers and strings as JSON data, and back.

JSON has no NaN and no infinities, so a non-finite number in a float field is written as the
string "nan", "inf" or "-inf" and read back from it.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar, Union

from nanhunt.errors import ReportFormatError

_Record = TypeVar("_Record")


def encode(value: Any) -> Any:
    """Turns a record into dicts, lists, numbers and strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if dataclasses.is_dataclass(value):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    return value


def decode(record: type[_Record], data: Any, where: str) -> _Record:
    """Reads a record back; fields that are absent take their defaults.

    Args:
        record: the dataclass to read.
        data: what `encode` made of one.
        where: how the spot is called in messages.

    Raises:
        ReportFormatError: something does not belong there.
    """
    if not isinstance(data, dict):
        raise ReportFormatError(f"{where}: expected an object, got {type(data).__name__}")
    hints = typing.get_type_hints(record)
    values = {}
    for field in dataclasses.fields(record):  # type: ignore[arg-type]
        if field.name in data:
            spot = f"{where}.{field.name}"
            values[field.name] = _decode_value(hints[field.name], data[field.name], spot)
    try:
        return record(**values)
    except TypeError as error:
        raise ReportFormatError(f"{where}: {error}") from error


def _decode_value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        for option in options[:-1]:
            if type(value) is option:
                return value
        return _decode_value(options[-1], value, where)
    if origin is tuple and isinstance(value, list) and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise ReportFormatError(f"{where}: expected {len(arguments)} entries")
        pairs = enumerate(zip(arguments, value, strict=True))
        return tuple(_decode_value(a, v, f"{where}[{i}]") for i, (a, v) in pairs)
    if origin is tuple and isinstance(value, list):
        return tuple(_decode_value(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(hint, type) and issubclass(hint, tuple) and isinstance(value, list):
        hints = typing.get_type_hints(hint)  # a NamedTuple: a row of numbers without their names
        if len(value) != len(hints):
            raise ReportFormatError(f"{where}: expected {len(hints)} entries")
        named = zip(hints.items(), value, strict=True)
        return hint(*(_decode_value(h, v, f"{where}.{name}") for (name, h), v in named))
    if origin is dict and isinstance(value, dict):
        return {str(k): _decode_value(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return decode(hint, value, where)
    if hint is float and value in ("nan", "inf", "-inf"):
        return float(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise ReportFormatError(f"{where}: {type(value).__name__} does not belong there")
