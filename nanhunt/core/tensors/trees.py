"""Nested containers, as torch itself goes through them (`torch.utils._pytree`).

Besides dicts, lists and tuples it knows named tuples and every class that somebody has
registered with it: outputs and caches of transformers, dataclasses, classes of the user's.
"""

from __future__ import annotations

from collections.abc import Iterable

from nanhunt.torch_private import tree_nodes


def held(value: object) -> Iterable[object]:
    """What an object of a registered class holds, one level of it; nothing for any other."""
    node = tree_nodes.get(type(value))
    return () if node is None else node.flatten_fn(value)[0]


def named_parts(value: object) -> list[tuple[str, object]]:
    """Like `held`, each part with how it is reached from the object, e.g. `.mask` or `[0]`."""
    node = tree_nodes.get(type(value))
    if node is None:
        return []
    if node.flatten_with_keys_fn is not None:
        return [(str(key), part) for key, part in node.flatten_with_keys_fn(value)[0]]
    return [(f"[{number}]", part) for number, part in enumerate(held(value))]
