"""Modules that learn their sizes from the first batch, to be put back to before that, or after."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nanhunt.core.tensors.stats import is_lazy
from nanhunt.torch_private import LazyHooks, buffers_in, parameters_in


class LazyState:
    """What torch exchanges when a lazy module gets its sizes: classes, and the hooks that do it.

    Args:
        modules: all within reach.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = [(module, type(module), LazyHooks.of(module)) for module in modules]
        self._tensors = [
            (tensor, type(tensor))
            for module, _, _ in self._modules
            for table in (parameters_in(module), buffers_in(module))
            for tensor in table.values()
            if tensor is not None
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Takes sizes away, or gives them again; the values are copied elsewhere."""
        for module, kind, hooks in self._modules:
            now = LazyHooks.of(module)
            if hooks is not None and now is None:
                hooks.put_back()
            elif hooks is None and now is not None:
                now.take_off()
            if type(module) is not kind:
                module.__class__ = kind
        for tensor, tensor_kind in self._tensors:
            if type(tensor) is not tensor_kind:
                _change(tensor, tensor_kind)


def _change(tensor: Tensor, kind: type[Tensor]) -> None:
    if not is_lazy(tensor):
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    tensor.__class__ = kind
