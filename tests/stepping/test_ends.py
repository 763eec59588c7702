"""Promises of stepping by hand: failures, exceptions, ends, and what steps are made of."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import nanhunt
from nanhunt.errors import HuntBusyError
from tests.stepping.programs import Net, bare, training
from tests.test_hunt import bits, same


def test_a_bad_step_is_undone_and_named_and_a_hunt_from_there_finds_the_same() -> None:
    model, _, step_fn, _ = training(fails_at=3)
    expected = nanhunt.hunt(model, step_fn, steps=10)
    model, _, step_fn, seen = training(fails_at=3)
    with nanhunt.Hunt(model, step_fn) as hunt:
        hunt.run(10, examine=False)
        assert hunt.position == 3
        assert hunt.bad[0] == "loss"
        assert len(seen) == 3
        assert hunt.report.status == "unexplained", "nothing was examined yet"
        assert hunt.replay() == "bit_exact"
        hunt.break_at("head")
        while hunt.position < 3 or hunt.here is None:
            hunt.resume()
        hunt.back()
        hunt.clear_breakpoints()
        report = hunt.run(10)
    assert report.finding is not None
    assert expected.finding is not None
    assert report.finding == expected.finding


def test_an_exception_of_the_step_is_raised_as_theirs_and_the_hunt_lives_on() -> None:
    model, optimizer, inner, _ = training()
    broken = [True]

    def step_fn() -> None:
        inner()
        if broken[0]:
            raise KeyError("mine")

    before = bits(model, optimizer)
    with nanhunt.Hunt(model, step_fn, complex_half=False) as hunt:
        hunt.into()
        with pytest.raises(KeyError, match="mine"):
            hunt.resume()
        assert same(bits(model, optimizer)[: len(before)], before)
        broken[0] = False
        hunt.into()
        hunt.resume()
        assert hunt.position == 1


def test_a_step_that_catches_everything_is_undone_all_the_same() -> None:
    model, optimizer, inner, _ = training()

    def step_fn() -> None:
        optimizer.zero_grad()
        with contextlib.suppress(BaseException):  # as a bare `except:` in somebody's code
            inner()

    before = bits(model, optimizer)
    with nanhunt.Hunt(model, step_fn, complex_half=False) as hunt:
        hunt.into()
        hunt.back()
        assert hunt.position == 0
        assert same(bits(model, optimizer)[: len(before)], before)


def test_closing_a_paused_hunt_undoes_the_step_and_ends_the_thread() -> None:
    model, optimizer, step_fn, _ = training()
    before = bits(model, optimizer)
    with nanhunt.Hunt(model, step_fn) as hunt:
        hunt.into()
        assert any(t.name == "nanhunt-step" for t in threading.enumerate())
    assert not any(t.name == "nanhunt-step" for t in threading.enumerate())
    assert same(bits(model, optimizer)[: len(before)], before)


LEAVING = """
import atexit, sys, threading, time
import torch
import nanhunt
from nanhunt.core.stepping.ambient import Ambient

net = torch.nn.Sequential(torch.nn.Linear(64, 512), torch.nn.ReLU(), torch.nn.Linear(512, 1))
optimizer = torch.optim.SGD(net.parameters(), 1e-4)

def step_fn():
    optimizer.zero_grad()
    net(torch.randn(256, 64)).square().mean().backward()
    optimizer.step()

hunt = nanhunt.Hunt(net, step_fn)
# Asked after nanhunt, which has something to do at exit only from when a step begins.
atexit.register(lambda: print(hunt.stepper.state, [t.name for t in threading.enumerate()]))
if sys.argv[1] == "paused":
    while "backward" not in repr(hunt):
        hunt.into()
else:  # as the panel runs steps
    hunt.stepper.start("run", lambda: hunt.run(10**6), Ambient())
    while hunt.steps_run < 10:
        time.sleep(0.01)
print(hunt.stepper.state)
"""


@pytest.mark.parametrize("state", ["running", "paused"])
def test_a_process_that_ends_during_a_step_ends_well(state: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVING, state], capture_output=True, text=True, timeout=120
    )
    told = f"{state}\nidle ['MainThread']\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")


def test_halt_ends_a_run_of_another_thread_after_its_step(hunt: nanhunt.Hunt) -> None:
    def halting(here: Any) -> bool:
        if here.step == 2:
            hunt.halt()
        return False

    hunt.break_at("head", halting)
    assert hunt.run(20).steps_run == 3
    assert hunt.run(2).steps_run == 5, "the next run is not ended by it"


def test_a_cell_that_trains_while_a_step_is_paused_does_not_mix_with_it() -> None:
    model, optimizer, step_fn, _ = training()
    with nanhunt.Hunt(model, step_fn, complex_half=False) as hunt:
        hunt.break_at("head")
        hunt.resume()
        other, _, other_step, _ = training()
        other_step()
        assert hunt.here.path == "head"
        with pytest.raises(HuntBusyError, match="another hunt stands inside a step"):
            nanhunt.hunt(other, other_step)
        hunt.clear_breakpoints()
        hunt.resume()
        assert hunt._sentinel.facts.backwards == 1
    assert same(bits(model, optimizer), bare(1))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_recomputed_module_is_stopped_at_in_backward_and_says_so(reentrant: bool) -> None:
    class Checkpointed(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(checkpoint(self.body, x, use_reentrant=reentrant))

    torch.manual_seed(0)
    model = Checkpointed()
    model.body[2] = nn.ReLU()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(5, 4, requires_grad=True)

    def step_fn() -> None:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()

    with nanhunt.Hunt(model, step_fn) as hunt:
        hunt.statistics = True
        calls = []
        here = hunt.into()
        while here is not None:
            calls.append((here.path, here.phase, here.call))
            here = hunt.into()
    assert ("body.0", "before", "recompute") in calls
    assert hunt.position == 1


def test_a_compiled_model_is_stepped_through_uncompiled() -> None:
    model, optimizer, _, _ = training()
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(6, 4)

    def step_fn() -> None:
        optimizer.zero_grad()
        compiled(x).sum().backward()
        optimizer.step()

    with nanhunt.Hunt(compiled, step_fn) as hunt:
        hunt.step()
        hunt.break_at("body.0")
        assert hunt.resume().path == "body.0"
        hunt.clear_breakpoints()
        hunt.resume()
        hunt.step()
        assert hunt.position == 3
