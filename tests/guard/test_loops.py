"""Where a step begins and ends in loops of every shape."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

from tests.guard import programs
from tests.guard.programs import BAD, COUNT, batches, clean, different, everything, guarded


def gan_loop(nets: dict[str, nn.Module], optimizers: Any, data: Any) -> None:
    for x in data:
        fake = nets["generator"](x)
        real_side = (nets["judge"](x) - 1).square().mean()
        optimizers[0].zero_grad()
        (real_side + nets["judge"](fake.detach()).square().mean()).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        (nets["judge"](fake) - 1).square().mean().backward()
        optimizers[1].step()


def gan() -> tuple[dict[str, nn.Module], list[Any]]:
    torch.manual_seed(3)
    generator = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.2))
    nets = {"generator": generator, "judge": nn.Sequential(nn.Linear(6, 1))}
    return nets, [torch.optim.Adam(nets[n].parameters(), lr=1e-3) for n in ("judge", "generator")]


def test_a_step_of_two_optimizers_is_undone_whole() -> None:
    made = batches(bad=BAD)
    runs = []
    for data in (clean(made, BAD), made):
        nets, optimizers = gan()
        with guarded(nets, optimizers, policy="skip_batch") as guard:
            gan_loop(nets, optimizers, programs.loader(data))
        runs.append(everything(nets, *optimizers))
    assert different(*runs) == []
    assert (guard.report.counts, guard.report.steps) == ({"skipped": 3}, COUNT)


def test_when_the_second_update_is_bad_the_first_is_undone_as_well() -> None:
    def loop(nets: Any, optimizers: Any, data: Any) -> None:
        for x in data:
            optimizers[0].zero_grad()
            nets["judge"](x).square().mean().backward()
            optimizers[0].step()
            optimizers[1].zero_grad()
            scale = float("nan") if x[0, 0] > 100 else 1.0
            (nets["generator"](x).square().mean() * scale).backward()
            optimizers[1].step()

    made = batches(bad=BAD, value=200.0)
    runs = []
    for data in (clean(made, BAD), made):
        nets, optimizers = gan()
        with guarded(nets, optimizers, policy="skip_batch"):
            loop(nets, optimizers, data)
        runs.append(everything(nets, *optimizers))
    assert different(*runs) == []


def test_an_optimizer_that_is_never_used_does_not_make_one_step_of_the_loop() -> None:
    made = batches(bad=(COUNT - 1,))
    model = programs.net()
    used = torch.optim.SGD(model[0].parameters(), lr=0.05)
    idle = torch.optim.SGD(model[4].parameters(), lr=0.05)
    programs.plain_loop(model, used, made[: COUNT // 16 * 16])
    expected = everything(model, used)
    model = programs.net()
    used = torch.optim.SGD(model[0].parameters(), lr=0.05)
    idle = torch.optim.SGD(model[4].parameters(), lr=0.05)
    with guarded(model, [used, idle], policy="skip_batch") as guard:
        programs.plain_loop(model, used, made)
    assert guard.report.counts == {"skipped": 1}
    assert different(everything(model, used), expected) == []


def accumulating_loop(model: Any, optimizer: Any, data: Any) -> None:
    for index, x in enumerate(data):
        ((model(x) - 1).square().mean() / 2).backward()
        if index % 2:
            optimizer.step()
            optimizer.zero_grad()


def test_with_accumulation_all_batches_of_the_step_are_dropped() -> None:
    made = batches(bad=(4, 21))
    kept = clean(made, (4, 5, 20, 21))
    runs = []
    for data in (kept, made):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        with guarded(model, optimizer, policy="skip_batch") as guard:
            accumulating_loop(model, optimizer, programs.loader(data))
        runs.append(everything(model, optimizer))
    assert different(*runs) == []
    assert (guard.report.steps, guard.report.counts) == (COUNT // 2, {"skipped": 2})


def scheduled_loop(model: Any, optimizer: Any, data: Any, guard: Any) -> list[float]:
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    rates = []
    for x in data:
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()
        if not guard.undone:
            schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_a_schedule_that_asks_counts_healthy_steps_alone() -> None:
    made = batches(bad=BAD)
    runs, rates = [], []
    for data in (clean(made, BAD), made):
        model = programs.net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with guarded(model, optimizer, policy="skip_batch") as guard:
            rates.append(scheduled_loop(model, optimizer, programs.loader(data), guard))
        runs.append(everything(model, optimizer))
    assert different(*runs) == []
    assert set(rates[1]) == {*rates[0], 0.1}


def test_an_evaluation_between_two_steps_is_part_of_neither() -> None:
    made = batches(bad=BAD)
    runs = []
    for data in (clean(made, BAD), made):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        with guarded(model, optimizer, policy="skip_batch"):
            for _ in range(2):
                model.train()
                programs.plain_loop(model, optimizer, programs.loader(data))
                schedule.step()
                model.eval()
                with torch.no_grad():
                    for x in programs.loader(batches(5)):
                        model(x)
        runs.append(everything(model, optimizer))
        assert optimizer.param_groups[0]["lr"] == 0.001 / 4
    assert different(*runs) == []


@pytest.mark.parametrize("wrapped", [programs.loader, list])
@pytest.mark.parametrize("bad", [(0, 17, 43), (1, 17, 43)])
def test_a_model_whose_calls_cannot_be_seen_is_guarded_too(wrapped: Any, bad: Any) -> None:
    made = batches(bad=bad)

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = programs.net()

        def score(self, x: Any) -> Any:
            return self.inner(x)

    runs = []
    for data in (clean(made, bad), made):
        model = Hidden()
        optimizer = torch.optim.Adam(model.parameters())
        with guarded(model, optimizer, policy="skip_batch") as guard:
            for x in wrapped(data):
                optimizer.zero_grad()
                (model.score(x) - 1).square().mean().backward()
                optimizer.step()
        runs.append(everything(model, optimizer))
    assert guard.report.counts == {"skipped": 3}
    assert different(*runs) == []


def test_a_compiled_model_is_guarded_too() -> None:
    made = batches(bad=(1, 17))
    runs = []
    for data in (clean(made, (1, 17)), made):
        bare = programs.net()
        model = torch.compile(bare, backend="eager")
        model(made[2])  # compiled before the guard begins
        bare.load_state_dict(programs.net().state_dict())
        torch.manual_seed(1)
        optimizer = torch.optim.Adam(model.parameters())
        with guarded(model, optimizer, policy="skip_batch") as guard:
            programs.plain_loop(model, optimizer, programs.loader(data))
        runs.append(everything(bare, optimizer))
    assert guard.report.counts == {"skipped": 2}
    assert different(*runs) == []


def closure_loop(model: Any, optimizer: Any, data: Any) -> None:
    def closure(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        return loss

    for x in data:
        optimizer.step(functools.partial(closure, x))


@pytest.mark.parametrize("source", [programs.loader, list])
def test_an_update_that_calls_the_model_itself_is_guarded_too(source: Any) -> None:
    made = batches(bad=(1, 17))
    runs = []
    for data in (clean(made, (1, 17)), made):
        model = programs.net()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
        with guarded(model, optimizer, policy="skip_batch") as guard:
            closure_loop(model, optimizer, source(data))
        runs.append(everything(model, optimizer))
    assert guard.report.counts == {"skipped": 2}
    assert different(*runs) == []
