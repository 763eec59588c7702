"""Patches of others on the places that nanhunt patches live through everything that it does.

They are called, they stay until their owner takes them off, in whatever order, and when nanhunt
has ended nothing of it is left in any call.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

import nanhunt
from nanhunt.core.attached import patches, uninterrupted
from nanhunt.core.guard.script import ScriptRun
from nanhunt.core.hunting.loop import LoopHunt

STEPS = 5
PLACES: dict[str, tuple[Any, str]] = {
    "backward": (torch.autograd, "backward"),
    "Tensor.backward": (torch.Tensor, "backward"),
    "engine": (torch.autograd, "_engine_run_backward"),
    "GradScaler.step": (torch.amp.GradScaler, "step"),
    "Module.__call__": (nn.Module, "__call__"),
    "DataLoader": (_BaseDataLoaderIter, "__next__"),
    "Optimizer.__init__": (torch.optim.Optimizer, "__init__"),
}
# What every step calls; the rest is called when a training is set up.
IN_A_STEP = [name for name in PLACES if name != "Optimizer.__init__"]

LOOP = """
for number in range({steps}):
    program.at(number)
    program.optimizer.zero_grad()
    loss = program.loss()
    program.scaler.scale(loss).backward()
    program.scaler.step(program.optimizer)
    program.scaler.update()
"""
SCRIPT = "import foreign_patches\nprogram = foreign_patches.begin()\n" + LOOP


class Foreign:
    """Somebody's patch of one place, made as most people make one."""

    # No `__dict__`: what a step has changed in one is undone together with the step.
    __slots__ = ("beneath", "calls", "name", "original", "owner", "value")

    def __init__(self, place: str) -> None:
        self.owner, self.name = PLACES[place]
        self.original = vars(self.owner)[self.name]
        self.beneath: Any = None
        self.value: Any = None
        self.calls = 0

    def put(self) -> None:
        if self.value is not None:
            return
        self.beneath = vars(self.owner)[self.name]

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return self.beneath(*args, **kwargs)

        self.value = call
        setattr(self.owner, self.name, call)

    def remove(self) -> None:
        setattr(self.owner, self.name, self.beneath)

    @property
    def stands(self) -> bool:
        return vars(self.owner)[self.name] is self.value


class Program:
    """A training whose steps can do something to the patches.

    Args:
        do: what to do at the beginning of a step, by its number.
        bad: the step whose batch is not finite.
    """

    def __init__(self, do: dict[int, Callable[[], None]], bad: int | None = None) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        data = torch.randn(STEPS + 1, 3)
        if bad is not None:
            data[bad] = float("nan")
        self.batches = iter(DataLoader(data))
        self.do = do
        self.steps = 0

    def at(self, number: int) -> None:
        self.do.get(number, lambda: None)()

    def loss(self) -> torch.Tensor:
        return self.model(next(self.batches)).pow(2).mean()

    def step(self) -> None:
        self.at(self.steps)
        self.steps += 1
        self.optimizer.zero_grad()
        loss = self.loss()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()


# -- the occasions ----------------------------------------------------------------------------


def hunted(begin: Callable[[], Program], _: Path) -> None:
    program = begin()
    nanhunt.hunt(program.model, program.step, steps=STEPS, progress=False)


def guarded(begin: Callable[[], Program], _: Path) -> None:
    program = begin()
    with nanhunt.guard(program.model, program.optimizer, policy="skip_batch", bundle=None):
        for _number in range(STEPS):
            program.step()


def in_a_loop(begin: Callable[[], Program], _: Path) -> None:
    program = begin()
    with LoopHunt(program.model, progress=False):
        for _number in range(STEPS):
            program.step()


def in_a_cell(begin: Callable[[], Program], _: Path) -> None:
    program = begin()
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    try:
        shell.run_cell("%load_ext nanhunt")
        shell.push({"program": program, "model": program.model})
        with capture_output():
            result = shell.run_cell("%%nanhunt model" + LOOP.format(steps=STEPS))
        shell.run_cell("%unload_ext nanhunt")
        shell.reset()
    finally:
        InteractiveShell.clear_instance()
    result.raise_error()


def in_a_script(begin: Callable[[], Program], folder: Path) -> None:
    script = folder / "train.py"
    script.write_text(SCRIPT.format(steps=STEPS))
    module = types.ModuleType("foreign_patches")
    module.begin = begin  # type: ignore[attr-defined]
    sys.modules["foreign_patches"] = module
    try:
        ScriptRun(None).run(str(script), [])
    finally:
        del sys.modules["foreign_patches"]


OCCASIONS = [hunted, guarded, in_a_loop, in_a_cell, in_a_script]
occasions = pytest.mark.parametrize("occasion", OCCASIONS)


# -- nothing is left --------------------------------------------------------------------------


def files_called(call: Callable[[], Any]) -> set[str]:
    """The files of the package in which something runs during a call."""
    found: set[str] = set()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            found.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    package = str(Path(nanhunt.__file__).parent)
    return {name for name in found if name.startswith(package)}


def assert_nothing_is_active() -> None:
    """A step runs in no code of the package but what passes a call on, or comes off by it."""
    assert not [patch for patch in patches._patches.values() if patch.up]
    assert files_called(Program({}).step) <= {patches.__file__, uninterrupted.__file__}


def assert_nothing_stays(foreign: Foreign) -> None:
    """After a training step, the place is as it was at first."""
    assert_nothing_is_active()
    assert vars(foreign.owner)[foreign.name] is foreign.original
    assert files_called(Program({}).step) == set()


@pytest.fixture(params=PLACES)
def foreign(request: pytest.FixtureRequest) -> Iterator[Foreign]:
    made = Foreign(request.param)
    yield made
    setattr(made.owner, made.name, made.original)


@pytest.fixture(params=IN_A_STEP)
def foreign_in_a_step(request: pytest.FixtureRequest) -> Iterator[Foreign]:
    made = Foreign(request.param)
    yield made
    setattr(made.owner, made.name, made.original)


# -- the promises -----------------------------------------------------------------------------


@occasions
def test_a_patch_made_before_is_called_and_stays(
    occasion: Any, foreign: Foreign, tmp_path: Path
) -> None:
    foreign.put()
    occasion(lambda: Program({}), tmp_path)
    assert foreign.stands
    assert foreign.calls >= (1 if foreign.name == "__init__" else STEPS)
    assert_nothing_is_active()
    foreign.remove()
    assert_nothing_stays(foreign)


@occasions
@pytest.mark.parametrize("number", [0, 2])
def test_a_patch_made_during_a_step_is_called_and_stays(
    occasion: Any, number: int, foreign_in_a_step: Foreign, tmp_path: Path
) -> None:
    foreign = foreign_in_a_step
    occasion(lambda: Program({number: foreign.put}), tmp_path)
    assert foreign.stands
    assert foreign.calls >= STEPS - number
    assert_nothing_is_active()
    before = foreign.calls
    Program({}).step()
    assert foreign.calls > before
    foreign.remove()
    assert_nothing_stays(foreign)


@occasions
def test_a_patch_made_and_taken_off_during_the_steps_is_called_meanwhile(
    occasion: Any, foreign_in_a_step: Foreign, tmp_path: Path
) -> None:
    foreign = foreign_in_a_step
    occasion(lambda: Program({1: foreign.put, 3: foreign.remove}), tmp_path)
    assert foreign.calls >= 2
    assert_nothing_stays(foreign)


@occasions
def test_a_patch_made_before_can_be_taken_off_during_the_steps(
    occasion: Any, foreign_in_a_step: Foreign, tmp_path: Path
) -> None:
    foreign = foreign_in_a_step
    foreign.put()
    occasion(lambda: Program({2: foreign.remove}), tmp_path)
    assert foreign.calls >= 2
    assert_nothing_stays(foreign)


@occasions
def test_a_patch_made_afterwards_is_called_and_comes_off(
    occasion: Any, foreign: Foreign, tmp_path: Path
) -> None:
    occasion(lambda: Program({}), tmp_path)
    assert vars(foreign.owner)[foreign.name] is foreign.original
    foreign.put()
    Program({}).step()
    assert foreign.calls >= 1
    foreign.remove()
    assert_nothing_stays(foreign)


@occasions
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_patch_lives_through_a_bad_step_and_its_replays(
    occasion: Any, when: str, foreign_in_a_step: Foreign, tmp_path: Path
) -> None:
    foreign = foreign_in_a_step
    if when == "before":
        foreign.put()
    occasion(lambda: Program({2: foreign.put}, bad=2), tmp_path)
    assert foreign.stands
    before = foreign.calls
    assert_nothing_is_active()
    assert foreign.calls > before
    foreign.remove()
    assert_nothing_stays(foreign)


def test_a_bad_step_is_found_beneath_a_patch_of_anybody(foreign_in_a_step: Foreign) -> None:
    program = Program({1: foreign_in_a_step.put}, bad=3)
    report = nanhunt.hunt(program.model, program.step, steps=STEPS, progress=False)
    assert report.finding is not None
    assert report.finding.step == 3
    foreign_in_a_step.remove()
    assert_nothing_stays(foreign_in_a_step)


def test_a_loop_is_replayed_beneath_a_patch_of_anybody(foreign_in_a_step: Foreign) -> None:
    program = Program({1: foreign_in_a_step.put}, bad=3)
    with LoopHunt(program.model, progress=False) as watched:
        for _ in range(STEPS):
            program.step()
    assert watched.report.finding is not None
    assert watched.report.finding.step == 3
    foreign_in_a_step.remove()
    assert_nothing_stays(foreign_in_a_step)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_torch_save_is_given_back_whoever_leaves_first(first: str, tmp_path: Path) -> None:
    original, calls = torch.save, []
    guard = nanhunt.save_guard()
    guard.__enter__()
    beneath = torch.save

    def save(*args: Any, **kwargs: Any) -> None:
        calls.append(args[1])
        beneath(*args, **kwargs)

    torch.save = save  # type: ignore[assignment]
    ends: dict[str, Callable[[], None]] = {
        "ours": lambda: guard.__exit__(None, None, None),
        "theirs": lambda: setattr(torch, "save", beneath),
    }
    with contextlib.suppress(nanhunt.NanhuntError):
        torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "first.pt")
    assert calls == [tmp_path / "first.pt"]
    ends.pop(first)()
    torch.save({}, tmp_path / "second.pt")
    ends.popitem()[1]()
    torch.save({}, tmp_path / "third.pt")
    assert next(found.path for found in guard.diagnoses) == str(tmp_path / "first.pt")
    assert torch.save is original
