"""Entering and leaving a guard: what it refuses, and what it leaves behind."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from nanhunt.errors import GuardStoppedError, HuntBusyError, PoisonedStateError, UsageError
from tests.guard import programs
from tests.guard.programs import batches, different, everything, guarded


def test_an_exception_of_the_loop_is_its_own() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    made = [*batches(2), "mine"]
    with pytest.raises(TypeError, match="argument 'input'"), guarded(model, optimizer):
        programs.plain_loop(model, optimizer, made)


def test_ctrl_c_is_the_loops_own() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(KeyboardInterrupt), guarded(model, optimizer):
        raise KeyboardInterrupt


class Bomb(torch.autograd.Function):
    """Raises in the backward pass."""

    error: type[BaseException] = ValueError

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        raise Bomb.error("in backward")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("where", ["between updates", "backward", "inside the update"])
def test_whatever_ends_the_loop_leaves_its_state_to_the_program(
    where: str, error: type[BaseException]
) -> None:
    def loop(model: Any, optimizer: Any) -> None:
        programs.plain_loop(model, optimizer, batches(2))
        y = model(batches(1)[0])
        if where == "between updates":
            raise error("here")
        if where == "backward":
            Bomb.error = error
            Bomb.apply(y).sum().backward()
        y.sum().backward()
        optimizer.register_step_post_hook(fail)
        optimizer.step()

    def fail(*_: Any) -> None:
        raise error("here")

    runs = []
    for watched in (False, True):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        if watched:
            with pytest.raises(error), guarded(model, optimizer, policy="rollback"):
                loop(model, optimizer)
        else:
            with pytest.raises(error):
                loop(model, optimizer)
        runs.append(everything(model, optimizer))
    assert different(*runs) == []


def test_a_poisoned_start_is_refused_by_name() -> None:
    model = programs.net()
    model[1].running_var[2] = float("inf")
    with pytest.raises(PoisonedStateError, match=r"buffer 1\.running_var"), guarded(model, None):
        pass


def test_two_guards_at_once_are_refused() -> None:
    model = programs.net()
    with guarded(model, None), pytest.raises(HuntBusyError), guarded(model, None):
        pass


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "skip"}, "skip_batch"),
        ({"every": 0}, "every"),
        ({"limit": True}, "limit"),
        ({"total": 1.5}, "total"),
        ({"scaler": 3}, "scaler"),
    ],
)
def test_arguments_that_cannot_work_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        guarded(programs.net(), None, **options)


def test_a_guard_holds_no_memory_after_it() -> None:
    import gc
    import weakref

    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    with guarded(model, optimizer, policy="rollback") as guard:
        programs.plain_loop(model, optimizer, programs.loader(batches(4)))
    gone = weakref.ref(model[0].weight)
    report = guard.report
    del model, optimizer, guard
    gc.collect()
    assert gone() is None
    assert report.steps == 4


@pytest.mark.parametrize("policy", ["stop", "skip_batch", "rollback"])
def test_a_guard_may_be_entered_once_more(policy: str) -> None:
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    guard = guarded(model, optimizer, policy=policy)
    for _ in range(2):
        ends = pytest.raises(GuardStoppedError) if policy == "stop" else contextlib.nullcontext()
        with ends, guard:
            programs.plain_loop(model, optimizer, programs.loader(batches(4, bad=(2,))))
    assert guard.report.failures == 2
    assert [event.step for event in guard.report.events] == ([2, 5] if policy == "stop" else [2, 6])
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
