"""Names for memory: what a step starts from, by the storages it lies in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from nanhunt.core.program.target import Target
from nanhunt.core.tensors.stats import plain_tensors


class Item(NamedTuple):
    """A tensor that a step starts from.

    Attributes:
        role: `"parameter"`, `"gradient"`, `"buffer"`, `"state"` or `"batch"`.
        name: its name.
        module: the module that owns it, or None.
        tensor: the live tensor.
    """

    role: str
    name: str
    module: str | None
    tensor: Tensor

    @property
    def is_statistic(self) -> bool:
        """Whether it is a running average of a normalisation."""
        return self.name.rpartition(".")[2] in ("running_mean", "running_var")


def items(
    target: Target,
    optimizers: list[Optimizer],
    batches: Sequence[Any],
    variables: Mapping[str, Tensor],
) -> Iterator[Item]:
    """Yields everything a step starts from, parameters first, the user's variables last."""
    for name, parameter in target.parameters.items():
        yield Item("parameter", name, name.rpartition(".")[0], parameter)
        if parameter.grad is not None:
            yield Item("gradient", f"gradient of {name}", None, parameter.grad)
    for name, buffer in target.buffers():
        yield Item("buffer", name, name.rpartition(".")[0], buffer)
    for optimizer in optimizers:
        for name, value in target.named_state(optimizer):
            yield Item("state", name, None, value)
    for number, batch in enumerate(batches):
        label = "batch" if len(batches) == 1 else f"batch {number}"
        yield from _of_batch(batch, label)
    for name, tensor in variables.items():
        yield Item("batch", name, None, tensor)


def _of_batch(batch: Any, label: str) -> Iterator[Item]:
    if isinstance(batch, Tensor):
        yield Item("batch", label, None, batch)
    elif isinstance(batch, dict):
        for key, value in batch.items():
            yield from _of_batch(value, f"{label}[{key!r}]")
    elif isinstance(batch, list | tuple):
        for index, value in enumerate(batch):
            yield from _of_batch(value, f"{label}[{index}]")
    else:
        for tensor in plain_tensors(batch):
            yield Item("batch", label, None, tensor)
