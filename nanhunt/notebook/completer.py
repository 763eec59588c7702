"""Completion after `%nanhunt`: modules first, then callables, then options."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from nanhunt.options import OPTIONS, options_for


def complete(line: str, symbol: str, namespace: Mapping[str, Any], cell: bool) -> list[str]:
    """Proposes what may stand at the end of the magic's line.

    Args:
        line: the line up to the cursor, the magic's name included.
        symbol: the word under the cursor, may be empty.
        namespace: the user's variables.
        cell: whether it is the cell magic, which takes no step function.
    """
    words = line.split()[1:]
    finished = words if not symbol else words[:-1]
    if symbol.startswith("-"):
        return [option.flag for option in options_for(cell) if option.flag.startswith(symbol)]
    if finished and finished[-1] in {o.flag for o in OPTIONS if o.kind == "object"}:
        return _names(namespace, symbol, lambda value: not isinstance(value, ModuleType))
    positions = [word for word in finished if not word.startswith("-")]
    if not positions:
        return _names(namespace, symbol, is_model)
    if len(positions) == 1 and not cell:
        return _names(namespace, symbol, is_step)
    return [option.flag for option in options_for(cell)] if not symbol else []


def is_model(value: Any) -> bool:
    """Whether a value can be the model: a module, or a dict or list of modules."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, torch.nn.Module) for item in value)
    return isinstance(value, torch.nn.Module)


def is_step(value: Any) -> bool:
    """Whether a value looks like a step function: callable, no class, no module."""
    return callable(value) and not isinstance(value, type) and not is_model(value)


def _names(namespace: Mapping[str, Any], symbol: str, fits: Any) -> list[str]:
    return sorted(
        name
        for name, value in namespace.items()
        if not name.startswith("_") and name.startswith(symbol) and fits(value)
    )
