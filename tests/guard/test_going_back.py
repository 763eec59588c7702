"""What `restore_buffers` and `rollback` put back, and what they leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.amp import GradScaler

from nanhunt.errors import GuardStoppedError
from tests.guard import programs
from tests.guard.programs import BAD, amp_loop, batches, clean, different, everything, guarded


def skipping_loop(model: Any, optimizer: Any, data: Any) -> None:
    """As loops do: what is not finite is left out, after BatchNorm has taken it in."""
    for x in data:
        loss = (model(x) - 1).square().mean()
        if not torch.isfinite(loss):
            continue
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("policy", ["restore_buffers", "skip_batch"])
def test_statistics_survive_a_loop_that_leaves_out_bad_batches_too_late(policy: str) -> None:
    made = batches(bad=BAD)
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    skipping_loop(model, optimizer, programs.loader(made))
    assert not torch.isfinite(model[1].running_mean).all(), "nothing to survive"

    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    with guarded(model, optimizer, policy=policy) as guard:
        skipping_loop(model, optimizer, programs.loader(made))
    assert torch.isfinite(model[1].running_mean).all()
    assert sum(guard.report.counts.values()) == 3
    assert all("buffer 1.running_mean" in event.bad for event in guard.report.events)
    if policy == "skip_batch":
        got = everything(model, optimizer)
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        skipping_loop(model, optimizer, programs.loader(clean(made, BAD)))
        assert different(got, everything(model, optimizer)) == []


def test_restoring_buffers_leaves_a_good_update_alone() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = everything(model, optimizer)
    with guarded(model, optimizer, policy="restore_buffers") as guard:
        (model(torch.randn(4, 6)) - 1).square().mean().backward()
        model[1].running_mean.fill_(float("nan"))
        optimizer.step()
    assert guard.report.counts == {"restored buffers": 1}
    changed = different(everything(model, optimizer), before)
    assert ".0.weight" in changed
    assert not [name for name in changed if "running" in name]


def test_restoring_buffers_stops_where_parameters_are_bad_as_well() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = everything(model, optimizer)
    with (
        pytest.raises(GuardStoppedError, match=r"buffers alone do not help: parameter 0\.weight"),
        guarded(model, optimizer, policy="restore_buffers"),
    ):
        programs.plain_loop(model, optimizer, programs.loader(batches(3, bad=(0,))))
    before.pop("random"), (after := everything(model, optimizer)).pop("random")
    assert different(after, before) == []


def poisoning_loop(model: Any, optimizer: Any, data: Any, at: int) -> list[bool]:
    finite = []
    for index, x in enumerate(data):
        if index == at:
            for state in optimizer.state.values():
                state["exp_avg_sq"].fill_(float("nan"))
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()
        finite.append(all(bool(torch.isfinite(p).all()) for p in model.parameters()))
    return finite


def test_rollback_survives_a_poisoned_optimizer() -> None:
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    with guarded(model, optimizer, policy="rollback", keep_every=10) as guard:
        finite = poisoning_loop(model, optimizer, programs.loader(batches()), at=25)
    assert all(finite)
    assert guard.report.counts == {"rolled back": 1}
    assert guard.report.events[0].step == 25
    assert all(bool(torch.isfinite(s["exp_avg_sq"]).all()) for s in optimizer.state.values())


def test_rollback_goes_back_to_the_bits_of_the_last_good_snapshot() -> None:
    made = batches()
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    programs.plain_loop(model, optimizer, programs.loader(made[:20]))
    expected = everything(model, optimizer)
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    with guarded(model, optimizer, policy="rollback", keep_every=10):
        poisoning_loop(model, optimizer, programs.loader(made[:26]), at=25)
    got = everything(model, optimizer)
    got.pop("random"), expected.pop("random")
    assert different(got, expected) == []


def test_rollback_leaves_the_learning_rate_to_its_schedule() -> None:
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=40)
    rates: dict[str, list[float]] = {}
    for bad in ((), (25,)):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=40)
        seen = rates.setdefault(str(bad), [])
        with guarded(model, optimizer, policy="rollback", keep_every=10) as guard:
            for x in programs.loader(batches(bad=bad)):
                optimizer.zero_grad()
                (model(x) - 1).square().mean().backward()
                optimizer.step()
                schedule.step()
                seen.append(optimizer.param_groups[0]["lr"])
    assert guard.report.counts == {"rolled back": 1}
    assert rates["()"] == rates["(25,)"]


@pytest.mark.parametrize("at", [3, 5, 6])
def test_rollback_does_not_take_away_parameters_that_joined_meanwhile(at: int) -> None:
    """As when layers are unfrozen; the bad batch is the one after they have joined, or later."""
    model = programs.net()
    optimizer = torch.optim.Adam(model[0].parameters())
    with guarded(model, optimizer, policy="rollback", keep_every=100) as guard:
        for index, x in enumerate(programs.loader(batches(9, bad=(at,)))):
            if index == 3:
                optimizer.add_param_group({"params": list(model[4].parameters())})
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimizer.step()
    assert guard.report.counts == {"rolled back": 1}
    assert len(optimizer.param_groups) == 2
    assert len(optimizer.state) == 4
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_skipping_cannot_cure_a_poisoned_optimizer_and_says_so() -> None:
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    with (
        pytest.raises(GuardStoppedError, match=r"bad before the step began: optimizer state"),
        guarded(model, optimizer, policy="skip_batch"),
    ):
        poisoning_loop(model, optimizer, programs.loader(batches()), at=25)


def test_rollback_with_a_scaler_puts_back_the_scaler_of_the_snapshot() -> None:
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    scaler = GradScaler("cpu", init_scale=2.0**10, growth_interval=1000)
    made = batches(12, bad=(5, 6))
    with guarded(model, optimizer, scaler=scaler, policy="rollback", keep_every=4) as guard:
        amp_loop(model, optimizer, scaler, programs.loader(made))
    assert guard.report.counts == {"rolled back": 2}
    assert scaler.get_scale() == 2.0**10
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
