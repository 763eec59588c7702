"""What the making of batches changes: random generators, samplers that count, data sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, Sampler

from nanhunt.core.snapshot.random_state import Generators, RandomState
from nanhunt.core.snapshot.reachable import ContainerState, Surroundings


class DataSource:
    """The state from which iterables of batches make them, to be put back after a look at one.

    Args:
        iterables: loaders, or whatever else gives batches.
    """

    def __init__(self, iterables: Iterable[Any]) -> None:
        around = Surroundings([part for data in iterables for part in _parts(data)])
        self._kept: list[ContainerState | Generators | RandomState] = [
            ContainerState(around.containers),
            Generators(around.generators),
            RandomState.now(),
        ]

    def restore(self) -> None:
        """Puts everything back."""
        for part in self._kept:
            part.restore()


def _parts(data: Any) -> Iterator[Any]:
    """The data and, where torch's own classes hold it, what these hold."""
    yield data
    if isinstance(data, DataLoader):
        yield data.generator
        for part in (data.dataset, data.sampler, data.batch_sampler):
            yield from _parts(part)
    elif isinstance(data, BatchSampler):
        yield from _parts(data.sampler)
    elif isinstance(data, Sampler):
        yield getattr(data, "generator", None)
