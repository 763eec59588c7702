"""A failure of the examination itself: the bad step is undone, and what was seen stays seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nanhunt
from nanhunt.core.hunting.loop import LoopHunt
from nanhunt.core.snapshot.snapshot import Snapshot

BAD_AT = 2


class Calls:
    """Counts in a class: no snapshot takes that back, so that replays differ."""

    made = 0
    fails_from = 10**6


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def forward(self, x: Tensor, scale: float) -> Tensor:
        Calls.made += 1
        if Calls.made > Calls.fails_from:
            raise torch.OutOfMemoryError("no room in this replay\nand more")
        return (self.body(x).abs() * scale).log() * scale


class Program:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Net()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.x = torch.randn(8, 4)
        self.steps = 0
        Calls.made, Calls.fails_from = 0, 10**6

    def step(self) -> Tensor:
        scale = 0.0 if self.steps == BAD_AT else 1.0
        self.steps += 1
        self.optimizer.zero_grad()
        loss = self.model(self.x, scale).mean()
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self) -> list[Tensor]:
        state = [v for s in self.optimizer.state.values() for v in s.values()]
        return [
            t.detach().clone() for t in (*self.model.parameters(), *self.model.buffers(), *state)
        ]


def hunted(program: Program) -> nanhunt.Report:
    return nanhunt.hunt(program.model, program.step, steps=5, progress=False, complex_half=False)


def stepped(program: Program) -> nanhunt.Report:
    with nanhunt.Hunt(program.model, program.step, progress=False, complex_half=False) as hunt:
        for _ in range(BAD_AT + 1):
            hunt.step()
        assert hunt.undone
        assert hunt.position == BAD_AT
        return hunt.report


def looped(program: Program) -> nanhunt.Report:
    with LoopHunt(program.model, progress=False, complex_half=False) as hunt:
        for _ in range(5):
            program.step()
    return hunt.report


def before_the_bad_step() -> list[Tensor]:
    program = Program()
    for _ in range(BAD_AT):
        program.step()
    return program.state()


WAYS = [hunted, stepped, looped]
PLACES = [
    "nanhunt.core.watch.replay.Replayer.replay",
    "nanhunt.core.observe.observer.Observer.__enter__",
    "nanhunt.core.hunting.investigation.judge",
    "nanhunt.core.hunting.investigation.finding_of",
    "nanhunt.core.hunting.investigation.explained",
]
ERRORS = [RecursionError, MemoryError, torch.OutOfMemoryError, KeyError]


def check(program: Program, report: nanhunt.Report, name: str) -> None:
    finding = report.finding
    assert finding is not None, str(report)
    assert (finding.step, finding.kind, finding.op) == (BAD_AT, "nan", None)
    assert finding.reaches[0] == "loss"
    assert "parameter body.0.weight" in finding.reaches
    assert report.replay == f"not_reproduced: the examination ended in {name}"
    (note,) = [note for note in report.notes if name in note]
    assert "\n" not in note
    assert all(map(torch.equal, program.state(), before_the_bad_step()))


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAYS)
def test_a_failure_of_ours_keeps_what_was_seen_and_undoes_the_step(
    way: Callable[[Program], nanhunt.Report],
    place: str,
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error("first line\nsecond line")

    program = Program()
    monkeypatch.setattr(place, fail)
    report = way(program)
    monkeypatch.undo()
    check(program, report, error.__name__)


@pytest.mark.parametrize("replay", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_a_step_whose_replay_runs_out_of_memory_is_not_accepted(
    way: Callable[[Program], nanhunt.Report], replay: int
) -> None:
    program = Program()
    Calls.fails_from = BAD_AT + replay
    report = way(program)
    Calls.fails_from = 10**6
    if way is looped and replay == 2:
        assert report.finding is not None
        assert report.finding.op == "aten.log.default", "one replay was enough to see it"
    else:
        check(program, report, "OutOfMemoryError")


def test_without_room_to_keep_the_steps_end_nothing_is_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = Program()

    def no_room(snapshot: Any) -> Any:
        present = type(snapshot)(*[None] * 4)
        present.missing = "no snapshot: no room"
        return present

    monkeypatch.setattr("nanhunt.core.hunting.investigation.end_state", no_room)
    check(program, hunted(program), "NoMemoryError")


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_in_an_examination_goes_through(
    way: Callable[[Program], nanhunt.Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    program = Program()
    monkeypatch.setattr("nanhunt.core.hunting.investigation.judge", stop)
    if way is hunted:
        assert hunted(program).interrupted
        monkeypatch.undo()
        assert all(map(torch.equal, program.state(), before_the_bad_step()))
    else:
        with pytest.raises(KeyboardInterrupt):
            way(program)


def test_a_suspicion_about_finite_values_is_dropped_when_it_cannot_be_examined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sum overflows in the screen; every number is finite."""

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("no room")

    model = nn.Linear(4, 1)
    model.register_buffer("large", torch.full((4,), 3e38))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 4)).mean().backward()
        optimizer.step()

    monkeypatch.setattr("nanhunt.core.watch.replay.Replayer.replay", fail)
    report = nanhunt.hunt(model, step, steps=3, progress=False)
    assert report.findings == ()
    assert report.steps_run == 3


def test_a_bad_step_is_undone_unexplained_when_its_names_cannot_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("no room")

    program = Program()
    with nanhunt.Hunt(program.model, program.step, progress=False, complex_half=False) as hunt:
        monkeypatch.setattr("nanhunt.core.watch.replay.Replayer.exact_facts", fail)
        hunt.run(5, examine=False)
        assert hunt.position == BAD_AT
        assert "loss" in hunt.bad
    monkeypatch.undo()
    assert all(map(torch.equal, program.state(), before_the_bad_step()))


@pytest.mark.parametrize("place", ["begin", "settle"])
def test_a_failure_of_ours_between_steps_is_told_and_the_training_stands_where_it_should(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program()
    original = getattr(Snapshot, place)

    def fail(snapshot: Snapshot) -> None:
        if program.steps == 1:
            raise NotImplementedError("no strategy for this tensor")
        original(snapshot)

    monkeypatch.setattr(Snapshot, place, fail)
    report = hunted(program)
    monkeypatch.undo()
    assert not report.healthy
    assert "Healthy" not in str(report)
    assert any("NotImplementedError" in note for note in report.notes)
    assert program.steps <= 1, "it goes on from here, or from the step that was undone"
