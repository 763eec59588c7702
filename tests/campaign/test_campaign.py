"""A seeded part of the campaign; `make campaign` runs a thousand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nanhunt
from nanhunt.core.tensors.stats import fingerprint
from tests.campaign.architectures import NAMES
from tests.campaign.injections import KINDS, draw
from tests.campaign.run import injections


def test_there_are_more_than_thirty_architectures() -> None:
    assert len(NAMES) > 30


# The first seeds from 10,000 on, until every kind of fault has been drawn; without 10,001, whose
# model takes three times as long as any other.
DRAWN = {
    10_000: "overflow",
    10_002: "write_inf",
    10_003: "overflow",
    10_004: "division",
    10_005: "division",
    10_006: "overflow",
    10_007: "gradient",
    10_009: "write_inf",
    10_010: "overflow",
    10_011: "gradient",
    10_012: "buffer",
    10_014: "write_inf",
    10_015: "write_inf",
    10_016: "parameter",
    10_019: "state",
    10_021: "write_nan",
}


def test_every_kind_of_fault_is_injected() -> None:
    assert set(DRAWN.values()) == set(KINDS)


@pytest.mark.parametrize("seed", DRAWN)
def test_an_injected_fault_is_placed_exactly(seed: int) -> None:
    injection = draw(seed, NAMES)
    assert injection is not None
    assert injection.kind == DRAWN[seed]
    report = nanhunt.hunt(injection.model, injection.step, steps=5, progress=False)
    wrong = injection.misses(report.finding)
    assert not wrong, f"{injection.kind} in {injection.architecture}"


def end_of_hunt(seed: int, **options: Any) -> list[tuple[int, int]]:
    torch.manual_seed(0)
    injection = draw(seed, NAMES)
    assert injection is not None
    nanhunt.hunt(injection.model, injection.step, steps=5, progress=False, **options)
    tensors = [*injection.model.parameters(), *injection.model.buffers(), torch.get_rng_state()]
    return [fingerprint(tensor.detach()) for tensor in tensors]


@pytest.mark.parametrize("seed", [555, 556, 557, 558])
def test_after_trials_and_confirmation_the_state_is_that_of_a_hunt_without_them(seed: int) -> None:
    assert end_of_hunt(seed, trials=False) == end_of_hunt(seed, confirm=2)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_makes_the_same_fault(seed: int) -> None:
    (_, first), (_, second) = next(injections(1, seed)), next(injections(1, seed))
    assert (first.architecture, first.kind, first.expected) == (
        second.architecture,
        second.kind,
        second.expected,
    )
