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
    "the batch that a preflight takes from its data is drawn before the random state is kept": (
        "accelerate_loop/preflight bad_sample/preflight cycle_generator/preflight "
        "dictionaries/preflight generator_function/preflight iterable_dataset/preflight "
        "loader_workers/preflight next_of_iterator/preflight own_hooks/preflight "
        "own_patch/preflight read_ahead_attribute/preflight read_ahead_list/preflight"
    ),
    "a +Inf that the fault makes of a mask's -Inf is taken for the mask's": (
        "attention/cell/fault attention/hunt/fault attention/run/fault causal_language/cell/fault "
        "causal_language/hunt/fault causal_language/run/fault"
    ),
    "a parameter written through .data during forward is not undone": (
        "codebook_parameter/stepped"
    ),
    "dynamo compiles the functions of ours that the observed first step calls, and warns": (
        "compiled_function/cell compiled_function/hunt compiled_function/stepped"
    ),
    "a loop that is watched from outside is not asked whether it learns": (
        "detached_loss/run/fault"
    ),
    "the nested tensors of the encoder's fast path have no sizes to ask for": (
        "encoder_padding/cell encoder_padding/hunt encoder_padding/stepped"
    ),
    "an expanded tensor cannot be written back": (
        "expanded_buffer/hunt/fault expanded_buffer/preflight expanded_buffer/stepped"
    ),
    "gradients of torch.func or autograd.grad, written to .grad, are no backward to it": (
        "func_grad/hunt func_grad/preflight func_grad/stepped gradient_surgery/hunt "
        "gradient_surgery/hunt/fault gradient_surgery/preflight gradient_surgery/stepped "
        "per_sample_gradients/hunt per_sample_gradients/preflight per_sample_gradients/stepped"
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
        "half_master_weights/cell half_master_weights/cell/fault half_master_weights/hunt "
        "half_master_weights/hunt/fault half_master_weights/run half_master_weights/run/fault "
        "half_master_weights/stepped"
    ),
    "gradients used up inside of backward are taken for none": "in_backward/preflight",
    "what a preflight materializes stays so": "lazy/preflight",
    "what the program's hooks and patches count is not put back with an undone step": (
        "own_hooks/stepped own_patch/stepped"
    ),
    "a first step without backward is refused, though it only fills the memory": (
        "replay_buffer/cell replay_buffer/cell/fault replay_buffer/hunt replay_buffer/hunt/fault "
        "replay_buffer/preflight replay_buffer/stepped"
    ),
    "a bad loss whose batch the script leaves out itself is not seen": (
        "skip_nonfinite_by_hand/run/fault"
    ),
    "the state of an optimizer of tensors outside the model is not put back": (
        "soft_actor/cell/fault soft_actor/hunt/fault soft_actor/preflight"
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
