"""A failure of nanhunt's own while it watches a loop from outside does not end that loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nanhunt
from nanhunt.core.hunting.loop import LoopHunt
from nanhunt.errors import GuardStoppedError

STEPS = 5
LOOP_PLACES = [
    "nanhunt.core.snapshot.snapshot.Snapshot.before_optimizer",
    "nanhunt.core.snapshot.snapshot.Snapshot.settle",
    "nanhunt.core.watch.sentinel.screen",
    "nanhunt.core.watch.sentinel.plain_tensors",
    "nanhunt.core.watch.sentinel.Sentinel.finish",
]
GUARD_PLACES = [
    "nanhunt.core.snapshot.snapshot.Snapshot.before_optimizer",
    "nanhunt.core.snapshot.snapshot.Snapshot.begin",
    "nanhunt.core.snapshot.snapshot.Snapshot.settle",
    "nanhunt.core.watch.sentinel.screen",
    "nanhunt.core.watch.sentinel.Sentinel.finish",
]


def trained(watch: Any = None, fail_from: int = 0, bad_at: int = -1, start: Any = None) -> Any:
    """The weights after a few steps, and how many steps there were."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x = torch.randn(STEPS, 8, 4)
    done = 0

    def loop() -> None:
        nonlocal done
        for step in range(STEPS):
            if step == fail_from and start is not None:
                start()
            optimizer.zero_grad()
            (model(x[step]) / (step != bad_at)).mean().backward()
            optimizer.step()
            done += 1

    if watch is None:
        loop()
        return [p.detach() for p in model.parameters()], done, None
    with watch(model) as watching:
        loop()
    return [p.detach() for p in model.parameters()], done, watching.report


def fail(*_: Any, **__: Any) -> None:
    raise NotImplementedError("no strategy for this tensor")


def check(weights: list[Tensor], done: int, report: Any) -> None:
    expected, _, _ = trained()
    assert done == STEPS
    assert all(map(torch.equal, weights, expected))
    assert report.status == "internal_error"
    (note,) = [note for note in report.notes if "NotImplementedError" in note]
    assert "authors" in note
    assert "nanhunt itself failed" in str(report)


@pytest.mark.parametrize("when", [0, 2])
@pytest.mark.parametrize("place", LOOP_PLACES)
def test_a_watched_loop_goes_on(place: str, when: int, monkeypatch: pytest.MonkeyPatch) -> None:
    result = trained(
        lambda model: LoopHunt(model, progress=False),
        when,
        start=lambda: monkeypatch.setattr(place, fail),
    )
    monkeypatch.undo()
    check(*result)


@pytest.mark.parametrize("when", [0, 2])
@pytest.mark.parametrize("place", GUARD_PLACES)
def test_a_guarded_loop_goes_on(place: str, when: int, monkeypatch: pytest.MonkeyPatch) -> None:
    result = trained(
        lambda model: nanhunt.guard(model, bundle=None),
        when,
        start=lambda: monkeypatch.setattr(place, fail),
    )
    monkeypatch.undo()
    check(*result)


def test_a_guard_that_fails_over_a_bad_step_stops_as_nobody_undoes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(GuardStoppedError, match=r"step 2 was bad, and nanhunt itself failed"):
        trained(
            lambda model: nanhunt.guard(model, bundle=None, policy="skip_batch"),
            2,
            bad_at=2,
            start=lambda: monkeypatch.setattr(
                "nanhunt.core.snapshot.snapshot.Snapshot.restore", fail
            ),
        )
    monkeypatch.undo()
