"""Healthy training as people write it: nothing is found, nothing changes, nothing stays behind.

Here every program runs through one way in, and some of them with their fault; which is drawn from
their names, so that a new program changes nothing for the others. `make idioms` runs all of them
through all ways.
"""

from __future__ import annotations

import random

import pytest

from tests.idioms.grid import verdict
from tests.idioms.program import FAULTY_WAYS, has_fault, paths, ways_of

# What is known to fail, and why: who mends it takes it out. A key is `program/way`, with ` fault`
# behind it for the program with its fault put in.
KNOWN: dict[str, str] = {}

FAULTS_RUN = 0.4  # of the programs that have one


def _cases(names: list[tuple[str, str]], key: str) -> list[object]:
    known = {name: KNOWN.get(f"{'/'.join(name)}{key}") for name in names}
    return [
        pytest.param(*name, id="-".join(name), marks=pytest.mark.xfail(reason=why) if why else ())
        for name, why in known.items()
    ]


def healthy_sample() -> list[tuple[str, str]]:
    """Every program and the way in that is drawn for it."""
    return [(name, random.Random(name).choice(ways_of(path))) for name, path in paths().items()]


def faulty_sample() -> list[tuple[str, str]]:
    """Some programs that have a fault, and the way in that is drawn for each."""
    drawn = [(name, path, random.Random(name + " fault")) for name, path in paths().items()]
    return [
        (name, chance.choice([way for way in ways_of(path) if way in FAULTY_WAYS]))
        for name, path, chance in drawn
        if has_fault(path) and chance.random() < FAULTS_RUN
    ]


@pytest.mark.parametrize(("name", "way"), _cases(healthy_sample(), ""))
def test_healthy_training_as_people_write_it_is_left_as_it_is(name: str, way: str) -> None:
    assert verdict(name, way) == "ok"


@pytest.mark.parametrize(("name", "way"), _cases(faulty_sample(), " fault"))
def test_a_fault_put_into_it_is_found_where_it_is(name: str, way: str) -> None:
    assert verdict(name, way, "--fault") in ("right", "loop", "honest")
