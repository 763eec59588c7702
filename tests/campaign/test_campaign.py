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


@pytest.mark.slow
def test_twenty_injected_faults_of_all_kinds_are_placed_exactly() -> None:
    kinds = set()
    for seed, injection in injections(20, seed=10_000):
        report = nanhunt.hunt(injection.model, injection.step, steps=5, progress=False)
        wrong = injection.misses(report.finding)
        assert not wrong, f"seed {seed}, {injection.kind} in {injection.architecture}"
        kinds.add(injection.kind)
    assert kinds == set(KINDS)


def end_of_hunt(seed: int, **options: Any) -> list[tuple[int, int]]:
    torch.manual_seed(0)
    injection = draw(seed, NAMES)
    assert injection is not None
    nanhunt.hunt(injection.model, injection.step, steps=5, progress=False, **options)
    tensors = [*injection.model.parameters(), *injection.model.buffers(), torch.get_rng_state()]
    return [fingerprint(tensor.detach()) for tensor in tensors]


def test_after_trials_and_confirmation_the_state_is_that_of_a_hunt_without_them() -> None:
    for seed, _ in injections(4, seed=555):
        assert end_of_hunt(seed, trials=False) == end_of_hunt(seed, confirm=2), seed


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_makes_the_same_fault(seed: int) -> None:
    (_, first), (_, second) = next(injections(1, seed)), next(injections(1, seed))
    assert (first.architecture, first.kind, first.expected) == (
        second.architecture,
        second.kind,
        second.expected,
    )
