"""What a report comes to: one of seven words, of which two are green or nearly so."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

import nanhunt
from nanhunt.core.hunting.loop import LoopHunt
from nanhunt.core.snapshot.snapshot import Snapshot
from nanhunt.core.watch.sentinel import Sentinel
from nanhunt.errors import GuardStoppedError
from nanhunt.records.guard import GuardReport
from tests.render.reports import REPORTS, finding


class Program:
    """Trains a linear layer; in one step it does what it is told."""

    def __init__(self, at: int = 2, what: str = "") -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 4)
        self.optimizer = SGD(self.model.parameters(), lr=1e-3)
        self.x, self.at, self.what, self.steps = torch.rand(8, 4), at, what, 0

    def step(self) -> Tensor:
        now = self.what if self.steps == self.at else ""
        self.steps += 1
        self.optimizer.zero_grad()
        loss = self.model(self.x).pow(2).mean() * (float("nan") if now == "nan" else 1)
        loss.backward()
        if now == "raise":
            raise ValueError("mine")
        if now == "stop":
            raise KeyboardInterrupt
        self.optimizer.step()
        return loss

    def hunt(self) -> nanhunt.Hunt:
        return nanhunt.Hunt(self.model, self.step, progress=False, complex_half=False)


@pytest.mark.parametrize(
    ("name", "status", "healthy"),
    [
        ("healthy", "healthy", True),
        ("warning", "warning", True),
        ("forward", "finding", False),
        ("not_reproduced", "unexplained", False),
        ("interrupted", "interrupted", False),
        ("interrupted_finding", "finding", False),
        ("nothing_watched", "nothing_watched", False),
        ("internal_error", "internal_error", False),
    ],
)
def test_a_report_comes_to_one_of_seven_words(name: str, status: str, healthy: bool) -> None:
    report = REPORTS[name]
    assert (report.status, report.healthy) == (status, healthy)
    assert ("✓" in str(report).splitlines()[0]) == (status == "healthy")
    assert nanhunt.Report.from_dict(report.to_dict()) == report


@pytest.mark.parametrize("name", REPORTS)
def test_a_file_without_a_status_gets_the_one_that_follows_from_the_rest(name: str) -> None:
    data = REPORTS[name].to_dict()
    del data["status"]
    read = nanhunt.Report.from_dict(data)
    if name not in ("ended", "internal_error", "unexamined"):  # these follow from nothing else
        assert read.status == REPORTS[name].status


def test_every_status_has_a_sign_and_a_look_of_its_own() -> None:
    named = {report.status: report for report in REPORTS.values()}
    assert len(named) == 7
    assert len({report.story().glyph for report in named.values()}) == 7
    looks = {
        r.to_html().partition("<section class=")[2].partition(" aria")[0] for r in named.values()
    }
    assert len(looks) == 7


def test_a_failure_without_a_place_that_is_explained_is_a_finding() -> None:
    compiled = finding(op=None, source=None, module=None, cause="only_compiled")
    assert nanhunt.Report(3, (compiled,)).status == "finding"


def test_a_step_that_was_undone_unexamined_is_not_green() -> None:
    program = Program(what="nan")
    with program.hunt() as hunt:
        hunt.run(5, examine=False)
        assert hunt.report.status == "unexplained"
        assert "has not been looked for" in str(hunt.report)
        hunt.run(5)
        assert hunt.report.finding is not None


def test_a_hunt_that_goes_on_after_ctrl_c_or_an_exception_is_green_again() -> None:
    for what, error in (("raise", ValueError), ("stop", KeyboardInterrupt)):
        program = Program(what=what)
        with program.hunt() as hunt:
            hunt.step()
            hunt.step()
            with pytest.raises(error):
                hunt.step()
            assert (hunt.report.status, hunt.report.interrupted) == ("interrupted", what == "stop")
            program.what = ""
            hunt.run(3)
            assert hunt.report.status == "healthy"


def test_a_bad_step_that_raises_of_its_own_is_a_finding_and_not_an_interruption() -> None:
    program = Program(what="nan")
    raising = program.step

    def step() -> None:
        if not raising().isfinite():
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        nanhunt.hunt(program.model, step, steps=5, progress=False, complex_half=False)
    report = nanhunt.last_report()
    assert report is not None
    assert report.status == "finding"


# -- failures of nanhunt's own ---------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int) -> None:
    """The at-th call fails."""
    original, count = getattr(owner, name), itertools.count()

    def fail(*args: Any) -> Any:
        if next(count) == at:
            raise RuntimeError("a mistake of ours\nand more")
        return original(*args)

    monkeypatch.setattr(owner, name, fail)


PLACES = [(Snapshot, "before_optimizer"), (Sentinel, "finish"), (Snapshot, "settle")]


@pytest.mark.parametrize(("owner", "name"), PLACES)
def test_a_hunt_that_fails_itself_says_so_and_undoes_the_step(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, bare = Program(), Program()
    for _ in range(2):
        bare.step()
    failing(monkeypatch, owner, name, 2)
    report = nanhunt.hunt(program.model, program.step, steps=5, progress=False, complex_half=False)
    assert (report.status, report.findings) == ("internal_error", ())
    (note,) = [note for note in report.notes if "RuntimeError: a mistake of ours" in note]
    assert "nanhunt itself failed in step 2" in note
    assert "nanhunt/core/" in note
    assert "\n" not in note
    assert torch.equal(program.model.weight, bare.model.weight)


def test_after_a_failure_of_its_own_a_hunt_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    program, bare = Program(), Program()
    for _ in range(6):
        bare.step()
    failing(monkeypatch, Snapshot, "begin", 2)
    batches = iter(range(100))
    given: list[int] = []

    def step(batch: int) -> Tensor:
        given.append(batch)
        return program.step()

    with nanhunt.Hunt(
        program.model, step, data=batches, progress=False, complex_half=False
    ) as hunt:
        assert hunt.run(6).status == "internal_error"
        assert hunt.run(4).status == "healthy"
    assert given == [0, 1, 2, 3, 4, 5], "the batch of the step that could not begin comes again"
    assert torch.equal(program.model.weight, bare.model.weight)


def test_an_exception_of_the_data_is_the_users_own() -> None:
    def batches() -> Any:
        yield 1
        raise OSError("no such file")

    program = Program()
    with pytest.raises(OSError, match="no such file"):
        nanhunt.hunt(program.model, lambda _: program.step(), data=batches(), progress=False)


def test_an_undo_that_fails_is_told_and_hides_neither_finding_nor_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: Snapshot) -> None:
        raise RuntimeError("no way back")

    program = Program(what="raise")
    with program.hunt() as hunt:
        hunt.run(2)
        monkeypatch.setattr(Snapshot, "restore", fail)
        with pytest.raises(ValueError, match="mine"):
            hunt.step()
        assert "could not be undone" in " ".join(hunt.report.notes)
        assert hunt.report.status == "internal_error"


@pytest.mark.parametrize(("name", "at"), [("begin", 0), ("begin", 2), ("settle", 1)])
def test_a_loop_goes_on_when_what_watches_it_fails(
    name: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, bare = Program(), Program()
    for _ in range(6):
        bare.step()
    failing(monkeypatch, Snapshot, name, at)
    with LoopHunt(program.model, progress=False, complex_half=False) as hunt:
        for _ in range(6):
            program.step()
    assert hunt.report.status == "internal_error"
    assert torch.equal(program.model.weight, bare.model.weight)


# -- loops and guards ------------------------------------------------------------------------------


def watched(program: Program, how: str, steps: int) -> Any:
    watch: Any = (
        LoopHunt(program.model, progress=False, complex_half=False)
        if how == "loop"
        else nanhunt.guard(program.model, program.optimizer, bundle=None)
    )
    with contextlib.suppress(ValueError, KeyboardInterrupt, GuardStoppedError), watch:
        for _ in range(steps):
            program.step()
    return watch.report


@pytest.mark.parametrize("how", ["loop", "guard"])
def test_loops_and_guards_know_the_same_words(how: str) -> None:
    assert watched(Program(), how, 4).status == "healthy"
    assert watched(Program(), how, 0).status == "nothing_watched"
    stopped = watched(Program(what="stop"), how, 4)
    raised = watched(Program(what="raise"), how, 4)
    assert (stopped.status, stopped.interrupted) == ("interrupted", True)
    assert (raised.status, raised.interrupted) == ("interrupted", False)
    assert not stopped.healthy
    assert not raised.healthy
    assert str(raised).startswith("■ Ended by an exception after 2 steps")
    gone_bad = watched(Program(what="nan"), how, 4)
    # What the loop's own code did, outside the model, cannot be run again.
    assert gone_bad.status == {"loop": "unexplained", "guard": "finding"}[how]


def test_a_guards_file_without_a_status_is_read() -> None:
    report = GuardReport(steps=3, checks=3, counts={"skipped": 1})
    data = report.to_dict()
    del data["status"], data["interrupted"]
    assert GuardReport.from_dict(data) == report
    assert report.status == "finding"
