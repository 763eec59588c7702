"""A replay gets the data of its step again, wherever they come from, or says that it did not."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import nanhunt

BAD_AT = 3


def hunted(batch: Callable[[], Tensor]) -> nanhunt.Report:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(batch()).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return nanhunt.hunt(model, step, steps=8, progress=False, trials=False)


def batches() -> Iterator[Tensor]:
    for number in range(50):
        yield torch.full((4, 4), float("nan") if number == BAD_AT else 1.0)


class Ahead:
    """Holds the next batch when it gives one."""

    def __init__(self) -> None:
        self.source = batches()
        self.following = next(self.source)

    def __iter__(self) -> Ahead:
        return self

    def __next__(self) -> Tensor:
        given, self.following = self.following, next(self.source)
        return given


class Streamed(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return batches()


class Holder:
    """Has no methods, as a bag of settings has none."""

    iterator: Iterator[Any]


class Trainer(Holder):
    def start(self, iterator: Iterator[Any]) -> None:
        self.iterator = iterator


def reads_ahead_of_the_loop() -> Iterator[Any]:
    loader = DataLoader(Streamed(), batch_size=None)
    return iter(Accelerator(cpu=True).prepare(loader))


SOURCES: dict[str, Callable[[], Iterator[Any]]] = {
    "a generator": batches,
    "an object that reads ahead": Ahead,
    "accelerate's loader": reads_ahead_of_the_loop,
}
PLACES = ("list", "dict", "attribute", "attribute of an object without methods")


def getter(place: str, iterator: Iterator[Any]) -> Callable[[], Tensor]:
    if place == "list":
        held = [iterator]
        return lambda: next(held[0])
    if place == "dict":
        named = {"train": iterator}
        return lambda: next(named["train"])
    holder = Trainer() if place == "attribute" else Holder()
    holder.iterator = iterator
    return lambda: next(holder.iterator)


@pytest.mark.parametrize(("source", "place"), [*itertools.product(SOURCES, PLACES)])
def test_an_iterator_is_rewound_wherever_it_hangs(source: str, place: str) -> None:
    report = hunted(getter(place, SOURCES[source]()))
    assert report.finding is not None
    assert (report.replay, report.finding.phase) == ("bit_exact", "data")


def taking_turns(sources: list[Iterator[Tensor]] | deque[Iterator[Tensor]]) -> Tensor:
    turn = sources.popleft() if isinstance(sources, deque) else sources.pop(0)
    sources.append(turn)
    return next(turn)


@pytest.mark.parametrize("kind", [list, deque])
def test_iterators_that_take_turns_are_rewound_and_stay_whose_they_are(
    kind: type[list[Iterator[Tensor]]] | type[deque[Iterator[Tensor]]],
) -> None:
    good, bad = itertools.repeat(torch.ones(4, 4)), batches()
    sources = kind([bad, good])
    report = hunted(lambda: taking_turns(sources))
    assert report.finding is not None
    assert (report.finding.step, report.replay) == (2 * BAD_AT, "bit_exact")
    assert list(sources) == [bad, good]


def test_a_place_that_an_iterator_has_left_is_let_alone() -> None:
    held: list[Any] = [iter([torch.ones(4, 4)])]

    def batch() -> Tensor:
        given: Tensor | None = next(held[0], None) if held[0] is not None else None
        if given is None:
            held[0] = None
        return torch.ones(4, 4)

    assert hunted(batch).findings == ()
    assert held == [None]


class Drawn:
    """Counts in a class: no snapshot takes that back."""

    count = 0


def unrepeatable_batch() -> Tensor:
    Drawn.count += 1
    return torch.full((4, 4), float("nan") if Drawn.count == BAD_AT + 1 else float(Drawn.count))


def unrepeatable_noise() -> Tensor:
    Drawn.count += 1
    seed = int.from_bytes(os.urandom(4), "big")
    noise = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))
    return noise / (0.0 if Drawn.count > BAD_AT else 1.0)


@pytest.mark.xfail(strict=True, reason="nothing remembers what the model was given")
@pytest.mark.parametrize("draw", [unrepeatable_batch, unrepeatable_noise])
def test_a_replay_on_other_numbers_says_so(draw: Callable[[], Tensor]) -> None:
    Drawn.count = 0
    report = hunted(draw)
    assert report.finding is not None
    assert report.replay != "bit_exact"
    told = " ".join([report.replay, *report.notes])
    assert "another batch" in told or "other random numbers" in told
