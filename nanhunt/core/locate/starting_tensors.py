"""Names the tensors that a step starts from: parameters, buffers, optimizer state, batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from nanhunt.core.locate.descent import Origin
from nanhunt.core.observe import op_table
from nanhunt.core.observe.closeup import Closeup
from nanhunt.core.observe.observer import Observer
from nanhunt.core.program.target import Target
from nanhunt.core.tensors.stats import is_lazy, plain_tensors, tensor_stats
from nanhunt.core.tensors.trees import named_parts
from nanhunt.records.report import TensorStats


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


@dataclasses.dataclass(frozen=True)
class Named:
    """A tensor that the step starts from, with its values at the start."""

    role: str
    name: str
    stats: TensorStats


@dataclasses.dataclass(frozen=True)
class Outside:
    """A tensor from outside the step that was bad before it.

    Attributes:
        role: `"parameter"`, `"buffer"`, `"state"`, `"gradient"`, `"batch"` or `"tensor"`.
        name: its name.
        module: the module that owns it, or None.
        stats: what was in it.
    """

    role: str
    name: str
    module: str | None
    stats: TensorStats


class StartingTensors:
    """What a step starts from; asked while the state stands at its start.

    Args:
        target: the model.
        optimizers: a live list.
        batches: gives what the step is given and takes, as far as it is known by now.
        variables: tensors in variables of the step function, by their names.
    """

    def __init__(
        self,
        target: Target,
        optimizers: list[Optimizer],
        batches: Callable[[], Sequence[Any]],
        variables: Mapping[str, Tensor],
    ) -> None:
        self._target = target
        self._optimizers = optimizers
        self._batches = batches
        self._variables = variables

    def never_masks(self, observer: Observer) -> frozenset[int]:
        """Storages in which an infinity is no mask: parameters, gradients, states, statistics."""
        keys = set()
        for item in self._items():
            if item.role in ("parameter", "state", "gradient") or item.is_statistic:
                region = observer.storages.region(item.tensor)
                if region is not None:
                    keys.add(region.key)
        return frozenset(keys)

    def outside(self, observer: Observer, origin: Origin) -> Outside | None:
        """The tensor that a bad value from outside the step stands in, if it has a name."""
        if not origin.external or origin.value is None or origin.value.region is None:
            return None
        for item in self._items():
            region = observer.storages.region(item.tensor)
            if region is not None and region.overlaps(origin.value.region):
                stats = tensor_stats(item.tensor, item.name)
                return Outside(item.role, item.name, item.module, stats)
        return None

    def named(self, observer: Observer) -> dict[int, Named]:
        """All but gradients, by storage."""
        named: dict[int, Named] = {}
        for item in self._items():
            region = observer.storages.region(item.tensor)
            if region is not None and item.role != "gradient":
                stats = tensor_stats(item.tensor, item.name)
                named.setdefault(region.key, Named(item.role, item.name, stats))
        return named

    def _items(self) -> list[Item]:
        return list(items(self._target, self._optimizers, self._batches(), self._variables))


def array_made_tensor(origin: Origin, closeup: Closeup | None) -> Outside | None:
    """The array or list of numbers that a bad value came in with, as far as it was seen."""
    record = origin.record
    if not origin.external or record is None or record.packet not in op_table.LITERALS:
        return None
    seen = closeup.main if closeup is not None and closeup.seen else None
    if seen is None or not seen.outputs:
        return None
    return Outside("batch", "an array made into a tensor", None, seen.outputs[0])


def items(
    target: Target,
    optimizers: list[Optimizer],
    batches: Sequence[Any],
    variables: Mapping[str, Tensor],
) -> Iterator[Item]:
    """Yields everything a step starts from, parameters first, the user's variables last."""
    for name, parameter in target.parameters.items():
        if is_lazy(parameter):
            continue  # without values until the step has run
        yield Item("parameter", name, name.rpartition(".")[0], parameter)
        if parameter.grad is not None:
            yield Item("gradient", f"gradient of {name}", None, parameter.grad)
    for name, buffer in target.buffers():
        if not is_lazy(buffer):
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
    elif parts := named_parts(batch):
        for place, value in parts:
            yield from _of_batch(value, f"{label}{place}")
    else:
        for tensor in plain_tensors(batch):
            yield Item("batch", label, None, tensor)
