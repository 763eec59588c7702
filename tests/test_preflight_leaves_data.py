"""A preflight takes a batch, and training then begins with the very batches it would have had."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import nanhunt
from tests.leftovers import threads_left

Source = Callable[[], Any]


class Epochs(RandomSampler):
    """Orders its samples by a number of its own, as distributed samplers do."""

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        order = torch.Generator().manual_seed(self.epoch)
        yield from torch.randperm(len(self), generator=order).tolist()


def drawn() -> Iterator[list[Tensor]]:
    for _ in range(4):
        yield [torch.randn(2, 3)]


def numbers() -> TensorDataset:
    return TensorDataset(torch.arange(24.0).reshape(8, 3))


def in_batches(data: TensorDataset) -> BatchSampler:
    order = RandomSampler(data, generator=torch.Generator().manual_seed(1))
    return BatchSampler(order, 2, drop_last=False)


SOURCES: dict[str, Source] = {
    "shuffled": lambda: DataLoader(numbers(), 2, shuffle=True),
    "a generator of its own": lambda: DataLoader(
        numbers(), 2, shuffle=True, generator=torch.Generator().manual_seed(1)
    ),
    "a batch sampler": lambda: DataLoader(numbers(), batch_sampler=in_batches(numbers())),
    "a sampler that counts": lambda: DataLoader(numbers(), 2, sampler=Epochs(numbers())),
    "workers": lambda: DataLoader(numbers(), 2, shuffle=True, num_workers=1),
    "drawn": drawn,
}


def training() -> tuple[nn.Module, Callable[[Any], Tensor]]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        loss = model(batch[0]).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def trained(source: Source, *, first: bool, inside: bool = False) -> list[Tensor]:
    """The batches of a training, its weights and random state, after a preflight or without."""
    model, step = training()
    data, seen = source(), []

    def epoch() -> Tensor:
        losses = [step(batch) for batch in data]
        return torch.stack(losses).mean()

    if first and inside:
        nanhunt.preflight(model, epoch)
    elif first:
        nanhunt.preflight(model, step, data=source() if source is drawn else data)
    for _ in range(2):
        for batch in data:
            seen.append(batch[0])
            step(batch)
    return [*seen, *model.state_dict().values(), torch.get_rng_state()]


@pytest.mark.parametrize("kind", SOURCES)
def test_training_after_a_preflight_has_the_batches_it_would_have_had(kind: str) -> None:
    expected = trained(SOURCES[kind], first=False)
    found = trained(SOURCES[kind], first=True)
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("kind", [kind for kind in SOURCES if kind not in ("drawn", "workers")])
def test_so_it_has_where_the_step_itself_reads_the_loader(kind: str) -> None:
    expected = trained(SOURCES[kind], first=False)
    found = trained(SOURCES[kind], first=True, inside=True)
    assert all(map(torch.equal, found, expected))


def test_a_step_that_raises_has_drawn_nothing() -> None:
    model, _ = training()
    order = torch.Generator().manual_seed(1)
    loader = DataLoader(numbers(), 2, shuffle=True, generator=order)
    before = order.get_state(), torch.get_rng_state()

    def step(batch: Any) -> None:
        raise ValueError(batch[0].shape)

    with pytest.raises(ValueError, match="Size"):
        nanhunt.preflight(model, step, data=loader)
    assert torch.equal(order.get_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_closed_hunt_holds_no_batch_and_no_workers() -> None:
    model, step = training()
    threads = set(threading.enumerate())
    loader = DataLoader(numbers(), 2, num_workers=1)
    with nanhunt.Hunt(model, step, data=loader, progress=False) as hunt:
        hunt.step()
    assert hunt.report.steps_run == 1
    assert not threads_left(threads)
