"""When a guard ends the loop, and when it must not."""

from __future__ import annotations

import pytest
import torch

from nanhunt.errors import GuardStoppedError
from tests.guard import programs
from tests.guard.programs import BAD, batches, different, everything, guarded


def test_stop_undoes_the_step_and_says_which_it_was() -> None:
    made = batches(bad=BAD[1:])
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    programs.plain_loop(model, optimizer, programs.loader(made[: BAD[1]]))
    expected = everything(model, optimizer)
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    guard = guarded(model, optimizer, policy="stop")
    with (
        pytest.raises(GuardStoppedError, match=r"policy stop; step 17: not finite: loss") as caught,
        guard,
    ):
        programs.plain_loop(model, optimizer, programs.loader(made))
    assert different(everything(model, optimizer), expected) == []
    assert guard.report.stopped == str(caught.value)
    assert guard.report.counts == {"stopped": 1}
    assert guard.report.steps == 18


def test_a_loop_that_swallows_the_stop_gets_no_further() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stops = 0
    with guarded(model, optimizer, policy="stop"):
        for x in programs.loader(batches(6, bad=(2,))):
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            before = everything(model)
            try:
                optimizer.step()
            except GuardStoppedError:
                stops += 1
                same = different(everything(model), before)
                assert not [name for name in same if "weight" in name]
    assert stops == 4


def test_too_many_bad_steps_in_a_row_stop_the_loop() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = guarded(model, optimizer, policy="skip_batch", limit=3)
    with pytest.raises(GuardStoppedError, match=r"3 bad steps in a row \(limit\)"), guard:
        programs.plain_loop(model, optimizer, batches(20, bad=(1, 2, 4, 5, 7, 8, 9, 12)))
    assert guard.report.counts == {"skipped": 6, "stopped": 1}
    assert guard.report.events[-1].step == 9


def test_too_many_bad_steps_altogether_stop_the_loop() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = guarded(model, optimizer, policy="skip_batch", total=3)
    with pytest.raises(GuardStoppedError, match=r"3 bad steps altogether \(total\)"), guard:
        programs.plain_loop(model, optimizer, batches(20, bad=(1, 4, 7, 12)))


def test_finite_values_whose_sum_overflows_are_no_failure() -> None:
    model = programs.net()
    model.register_buffer("large", torch.full((8,), 3e38))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with guarded(model, optimizer, policy="stop") as guard:
        for x in batches(4):
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimizer.step()
    assert guard.report.healthy
