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
    "what the loop computes and gives to the model is called data of the batch": (
        "adversarial_examples/run/fault running_statistics/run/fault three_models/run/fault"
    ),
    "a +Inf that the fault makes of a mask's -Inf is taken for the mask's": (
        "attention/cell/fault attention/hunt/fault attention/run/fault causal_language/cell/fault "
        "causal_language/hunt/fault causal_language/run/fault"
    ),
    "a closure first calls the model inside of optimizer.step, where the script's watch begins": (
        "closure_sgd/run closure_sgd/run/fault lbfgs/run lbfgs/run/fault"
    ),
    "dynamo meets something of ours in the compiled region, and warns": (
        "compiled_aot/guard compiled_function/guard compiled_function/run compiled_function/stepped"
    ),
    "a loop that is watched from outside is not asked whether it learns": (
        "detached_loss/run/fault"
    ),
    "the nested tensors of the encoder's fast path have no sizes to ask for": (
        "encoder_padding/cell encoder_padding/hunt encoder_padding/stepped"
    ),
    "nothing is watched where no module that holds the parameters is called": (
        "float16_by_hand/run float16_by_hand/run/fault forward_bypassed/run "
        "forward_bypassed/run/fault func_grad/run gaussian_process/run one_op/run "
        "one_op/run/fault parameters_only/run parameters_only/run/fault per_sample_gradients/run"
    ),
    "the line of a mode or subclass that only passes on is shown": (
        "function_mode/cell/fault function_mode/hunt/fault tensor_subclass/cell/fault "
        "tensor_subclass/hunt/fault"
    ),
    "an exception that a bad value caused comes without a finding": (
        "gaussian_process/cell/fault gaussian_process/hunt/fault gaussian_process/run/fault "
        "masked_actions/run/fault"
    ),
    "the optimizer holds copies of the model's parameters, which is refused": (
        "half_master_weights/run half_master_weights/run/fault"
    ),
    "the observer's mode is left from inside of a backward pass": "in_backward/cell",
    "outputs that are bad in the first step already are not located": (
        "lora/run/fault sampling_inside/run/fault"
    ),
    "a loop without any update has no step that is watched, and is called healthy": (
        "optimizer_step_missing/cell/fault optimizer_step_missing/run/fault"
    ),
    # Nothing that the step names leads there, and to search every function that hangs on torch and
    # on the modules for what it may keep would enter what belongs to other tools.
    "what the program's own hooks and patches count is not put back with an undone step": (
        "own_hooks/preflight own_hooks/stepped own_patch/preflight own_patch/stepped"
    ),
    "a scripted module takes no forward pre-hook": "scripted/guard",
    "a bad loss whose batch the script leaves out itself is not seen": (
        "skip_nonfinite_by_hand/run/fault"
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
