"""What a training has changed, bit by bit."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def final(space: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a training has changed, in a form that can be compared."""
    found: dict[str, Any] = {}
    for name, value in space.items():
        if not name.startswith("_") and name not in ("item", "In", "Out"):
            found.update(_flat(name, value))
    found["random state of torch"] = _bits(torch.get_rng_state())
    found["random state of numpy"] = repr(np.random.get_state()[1:3])
    found["random state of Python"] = hash(random.getstate())
    return found


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, nn.Module):
        for key, tensor in [*value.named_parameters(), *value.named_buffers()]:
            yield f"{name}.{key}", _bits(tensor)
    elif isinstance(value, Optimizer):
        for number, group in enumerate(value.param_groups):
            yield f"{name} lr {number}", repr(group.get("lr"))
            for place, parameter in enumerate(group["params"]):
                yield from _flat(f"{name}[{number}][{place}]", dict(value.state[parameter]))
    elif isinstance(value, Tensor):
        yield name, _bits(value)
    elif isinstance(value, int | float | str):
        yield name, repr(value)
    elif isinstance(value, list | tuple | deque):
        for number, part in enumerate(value):
            yield from _flat(f"{name}[{number}]", part)
    elif isinstance(value, dict):
        for number, (key, part) in enumerate(value.items()):
            yield from _flat(
                f"{name}[{key!r}]" if isinstance(key, str) else f"{name}[{number}]", part
            )


def _bits(tensor: Tensor) -> Any:
    plain = tensor.detach()
    if torch.nn.parameter.is_lazy(plain) or plain.is_meta:
        return "without values"
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    if plain.is_quantized:
        plain = plain.int_repr()
    whole = plain.clone(memory_format=torch.contiguous_format).resolve_conj()
    return str(plain.dtype), tuple(plain.shape), bytes(whole.reshape(-1).view(torch.uint8).tolist())
