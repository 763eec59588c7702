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
WHY: dict[str, str] = {
    "a batch that an iterator has given to a preflight cannot be given back": (
        "cycle_generator/preflight next_of_iterator/preflight read_ahead_attribute/preflight "
        "read_ahead_list/preflight"
    ),
    "dynamo meets something of ours in the compiled region, and warns": (
        "compiled_function/stepped"
    ),
    "a loop that is watched from outside is not asked whether it learns": (
        "detached_loss/run/fault"
    ),
    "a bad value that goes straight into a call that raises stands in no variable of a script": (
        "gaussian_process/run/fault"
    ),
    "the optimizer holds copies of the model's parameters, which is refused": (
        "half_master_weights/run half_master_weights/run/fault"
    ),
    # Nothing that the step names leads there, and to search every function that hangs on torch and
    # on the modules for what it may keep would enter what belongs to other tools.
    "what the program's own hooks and patches count is not put back with an undone step": (
        "own_hooks/preflight own_hooks/stepped own_patch/preflight own_patch/stepped"
    ),
    "a bad loss whose batch the script leaves out itself is not seen": (
        "skip_nonfinite_by_hand/run/fault"
    ),
    "dynamo compiles the functions of ours that the observed first step calls, and warns": (
        "compiled_function/cell compiled_function/hunt"
    ),
}
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
