"""Healthy training as people write it: nothing is found, nothing changes, nothing stays behind.

Here every program runs through one way in, and some of them with their fault; which is drawn from
their names, so that a new program changes nothing for the others. `make idioms` runs all of them
through all ways.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.idioms.grid import FINE, key, verdict
from tests.idioms.program import FAULTY_WAYS, has_fault, paths, ways_of

FAULTS_RUN = 0.3  # of the programs that have one

# What is known to fail, and why: who mends it takes it out.
WHY: dict[str, str] = {}
KNOWN = {name: why for why, names in WHY.items() for name in names.split()}


def drawn(name: str, ways: list[str]) -> str:
    """One of the ways, always the same for a program."""
    return random.Random(name).choice(ways)


def sample(faulty: bool) -> list[Any]:
    """A cell of the grid for every program, or for some of those that have a fault."""
    cells = []
    for name, path in paths().items():
        if not faulty:
            cells.append((name, drawn(name, ways_of(path))))
        elif has_fault(path) and random.Random(name).random() < FAULTS_RUN:
            ways = [way for way in ways_of(path) if way in FAULTY_WAYS]
            cells.append((name, drawn(name, ways), "fault"))
    marks = {cell: pytest.mark.xfail(reason=KNOWN.get(key(cell), "")) for cell in cells}
    return [
        pytest.param(cell, id=key(cell), marks=marks[cell] if key(cell) in KNOWN else ())
        for cell in cells
    ]


@pytest.mark.parametrize("cell", sample(faulty=False))
def test_healthy_training_as_people_write_it_is_left_as_it_is(cell: tuple[str, ...]) -> None:
    assert verdict(*cell) == "ok"


@pytest.mark.parametrize("cell", sample(faulty=True))
def test_a_fault_put_into_it_is_found_where_it_is(cell: tuple[str, ...]) -> None:
    assert verdict(*cell).partition(":")[0] in FINE


def test_whatever_is_known_to_fail_is_in_the_grid() -> None:
    programs = paths()
    for name, way, *fault in (known.split("/") for known in KNOWN):
        assert way in ways_of(programs[name])
        assert not fault or has_fault(programs[name])
