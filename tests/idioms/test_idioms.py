"""Healthy training as people write it: nothing is found, nothing changes, nothing stays behind.

Here a sample runs, most programs through one way in each and some with their fault, in about two
minutes; it is drawn from their names, so that a new program changes nothing for the others.
`make idioms` runs all of them through all ways.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.idioms.grid import FINE, key, verdict
from tests.idioms.program import FAULTY_WAYS, has_fault, paths, ways_of

SHARE, FAULTY_SHARE = 0.6, 0.2  # of the programs; a run takes about half a second

# What is known to fail, and why: who mends it takes it out.
WHY: dict[str, str] = {}
KNOWN = {name: why for why, names in WHY.items() for name in names.split()}


def sample(share: float, *fault: str) -> list[Any]:
    """Some of the programs, each through one way in; always the same."""
    chosen = []
    for name, path in paths().items():
        chance = random.Random("/".join((name, *fault)))
        ways = [way for way in ways_of(path) if not fault or way in FAULTY_WAYS]
        if chance.random() < share and (has_fault(path) or not fault):
            chosen.append((name, chance.choice(ways), *fault))
    return [pytest.param(cell, id=key(cell), marks=_marks(key(cell))) for cell in chosen]


def _marks(name: str) -> Any:
    return pytest.mark.xfail(reason=KNOWN[name]) if name in KNOWN else ()


@pytest.mark.parametrize("cell", sample(SHARE))
def test_healthy_training_as_people_write_it_is_left_as_it_is(cell: tuple[str, ...]) -> None:
    assert verdict(*cell) == "ok"


@pytest.mark.parametrize("cell", sample(FAULTY_SHARE, "fault"))
def test_a_fault_put_into_it_is_found_where_it_is(cell: tuple[str, ...]) -> None:
    assert verdict(*cell).partition(":")[0] in FINE


def test_whatever_is_known_to_fail_is_in_the_grid() -> None:
    programs = paths()
    for name, way, *fault in (known.split("/") for known in KNOWN):
        assert way in ways_of(programs[name])
        assert not fault or has_fault(programs[name])
