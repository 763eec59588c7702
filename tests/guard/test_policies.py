"""Policies are objects in one table: the guard asks them, and knows none by name."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest
import torch

import nanhunt
import nanhunt.core.guard.guard
import nanhunt.core.guard.start
import nanhunt.records.guard
import nanhunt.render.guard
from nanhunt.core.guard.policies import DEFAULT, POLICIES, STOPPED, BadStep, Policy
from nanhunt.errors import GuardStoppedError, UsageError
from tests.guard import programs
from tests.guard.programs import BAD, batches, clean, different, everything, guarded


def test_a_policy_of_ones_own_is_asked_with_every_bad_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = batches(bad=BAD)
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    seen: list[list[str]] = []

    def note_and_undo(step: BadStep) -> str:
        seen.append([str(sink) for sink in step.bad_state()])
        step.undo_whole()
        return step.bad_before()

    monkeypatch.setitem(POLICIES, "note", Policy("note", "noted", note_and_undo))
    with guarded(model, optimizer, policy="note") as guard:
        programs.plain_loop(model, optimizer, programs.loader(made))
    assert guard.report.counts == {"noted": len(BAD)}
    assert [event.step for event in guard.report.events] == list(BAD)
    assert {event.action for event in guard.report.events} == {"noted"}
    assert "3 noted" in str(guard.report)
    assert all("buffer 1.running_mean" in bad for bad in seen)
    assert len(seen) == len(BAD)
    got = everything(model, optimizer)
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    programs.plain_loop(model, optimizer, programs.loader(clean(made, BAD)))
    assert different(got, everything(model, optimizer)) == []


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (Policy("once", "ended", lambda step: step.undo_whole() or "", ends_loop=True), "once"),
        (Policy("refuse", "refused", lambda step: "cannot be helped"), "cannot be helped"),
    ],
)
def test_a_policy_of_ones_own_may_end_the_loop(
    policy: Policy, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(POLICIES, policy.name, policy)
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with (
        pytest.raises(GuardStoppedError, match=told),
        guarded(model, optimizer, policy=policy.name) as guard,
    ):
        programs.plain_loop(model, optimizer, programs.loader(batches(3, bad=(1,))))
    assert guard.report.counts == {"stopped": 1}


def test_good_snapshots_are_kept_for_a_policy_that_asks_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def back(step: BadStep) -> str:
        step.undo_whole()
        step.undo.roll_back()
        return step.bad_before()

    finite = {}
    for keeps in (False, True):
        monkeypatch.setitem(POLICIES, "back", Policy("back", "gone back", back, keeps_good=keeps))
        model = programs.net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        start = {name: value.clone() for name, value in model.named_parameters()}
        with guarded(model, optimizer, policy="back", keep_every=100):
            programs.plain_loop(model, optimizer, programs.loader(batches(4, bad=(3,))))
        now = dict(model.named_parameters())
        finite[keeps] = all(torch.equal(start[name], now[name]) for name in start)
    assert finite == {False: False, True: True}  # back at the first step, or at the step before


def test_a_wrong_policy_is_told_those_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "mine", Policy("mine", "mine", lambda step: ""))
    model = programs.net()
    with pytest.raises(UsageError, match="'rollback', 'mine'"):
        guarded(model, policy="theirs", optimizer=None)
    assert inspect.signature(nanhunt.guard).parameters["policy"].default == DEFAULT == "stop"


@pytest.mark.parametrize(
    "module",
    [
        nanhunt.core.guard.guard,
        nanhunt.core.guard.start,
        nanhunt.records.guard,
        nanhunt.render.guard,
    ],
)
def test_code_outside_the_table_knows_no_policy(module: Any) -> None:
    tree = ast.parse(inspect.getsource(module))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    words = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    }
    known = {word for policy in POLICIES.values() for word in (policy.name, policy.event)}
    assert words & known <= {STOPPED}  # that is said whatever the policy


def test_what_a_policy_changes_to_stay_outlives_the_rest_of_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def halve(step: BadStep) -> str:
        step.undo_whole()

        def smaller() -> None:
            for optimizer in step.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] /= 2

        step.lasts(smaller)
        return step.bad_before()

    monkeypatch.setitem(POLICIES, "halve", Policy("halve", "halved", halve))
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.5) for part in (first, second)]
    with guarded(torch.nn.Sequential(first, second), optimizers, policy="halve") as guard:
        for scale in (1.0, float("inf"), 1.0):
            for optimizer in optimizers:
                optimizer.zero_grad()
            second(first(torch.ones(1, 2) * scale)).sum().backward()
            for optimizer in optimizers:  # the second one steps after the first was undone
                optimizer.step()
    assert guard.report.counts == {"halved": 1}
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers] == [0.25, 0.25]
