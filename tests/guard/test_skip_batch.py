"""What `skip_batch` promises, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.amp import GradScaler
from torch.utils.data import DataLoader

from tests.guard import programs
from tests.guard.programs import (
    BAD,
    COUNT,
    OPTIMIZERS,
    amp_loop,
    batches,
    clean,
    different,
    everything,
    guarded,
)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("source", ["loader", "batches", "list"])
def test_skipping_bad_batches_ends_with_the_bits_of_the_clean_run(
    kind: str, source: str, value: float
) -> None:
    made = batches(bad=BAD, value=value)
    wrapped = programs.loader if source == "loader" else list
    model = programs.net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    programs.plain_loop(model, optimizer, wrapped(clean(made, BAD)))
    expected = everything(model, optimizer)

    model = programs.net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    with guarded(model, optimizer, policy="skip_batch") as guard:
        data = wrapped(made)
        programs.plain_loop(model, optimizer, guard.batches(data) if source == "batches" else data)
    assert different(everything(model, optimizer), expected) == []
    assert guard.report.counts == {"skipped": 3}
    assert [event.step for event in guard.report.events] == list(BAD)
    assert guard.report.steps == COUNT


class Augmented(torch.utils.data.Dataset[Any]):
    """Draws a random number for every batch, in the main process."""

    def __init__(self, made: list[Any]) -> None:
        self._made = made

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, index: int) -> Any:
        return self._made[index] * (0.5 + torch.rand(()))


@pytest.mark.parametrize("source", ["loader", "batches", "list"])
def test_random_numbers_drawn_for_a_bad_batch_are_drawn_again(source: str) -> None:
    def loop(model: Any, optimizer: Any, data: Any) -> None:
        for x in data:
            noisy = x + torch.randn_like(x)  # before the model is called
            optimizer.zero_grad()
            (model(noisy) - 1).square().mean().backward()
            optimizer.step()

    made = batches(bad=BAD)
    runs = []
    for kept in (clean(made, BAD), made):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        with guarded(model, optimizer, policy="skip_batch") as guard:
            augmented = DataLoader(Augmented(kept), batch_size=None)
            data = {"loader": augmented, "batches": guard.batches(augmented), "list": kept}
            loop(model, optimizer, data[source])
        runs.append(everything(model, optimizer))
    assert guard.report.counts == {"skipped": 3}
    assert different(*runs) == []


@pytest.mark.parametrize("policy", ["stop", "skip_batch", "restore_buffers", "rollback"])
@pytest.mark.parametrize("every", [1, 4])
def test_a_healthy_run_keeps_its_bits(policy: str, every: int) -> None:
    made = batches()
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    programs.plain_loop(model, optimizer, programs.loader(made))
    expected = everything(model, optimizer)
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    with guarded(model, optimizer, policy=policy, every=every, keep_every=7) as guard:
        programs.plain_loop(model, optimizer, programs.loader(made))
    assert different(everything(model, optimizer), expected) == []
    assert guard.report.healthy
    assert (guard.report.steps, guard.report.checks) == (COUNT, COUNT // every)


def test_checking_every_fourth_step_undoes_all_four() -> None:
    made = batches(bad=(17,))
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    programs.plain_loop(model, optimizer, programs.loader(clean(made, (16, 17, 18, 19))))
    expected = everything(model, optimizer)
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with guarded(model, optimizer, policy="skip_batch", every=4) as guard:
        programs.plain_loop(model, optimizer, programs.loader(made))
    assert different(everything(model, optimizer), expected) == []
    assert guard.report.counts == {"skipped": 1}


def test_with_a_scaler_its_scale_and_growth_are_put_back_too() -> None:
    made = batches(bad=BAD)
    runs = []
    for data in (clean(made, BAD), made):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        scaler = GradScaler("cpu", init_scale=2.0**12, growth_interval=5)
        with guarded(model, optimizer, scaler=scaler, policy="skip_batch") as guard:
            amp_loop(model, optimizer, scaler, programs.loader(data))
        runs.append(everything(model, optimizer, scaler))
    assert different(*runs) == []
    assert guard.report.counts == {"skipped": 3}


@pytest.mark.parametrize("policy", ["skip_batch", "restore_buffers"])
def test_with_an_optimizer_that_leaves_out_its_update_itself_a_step_counts_once(
    policy: str,
) -> None:
    made = batches(bad=BAD)
    runs = []
    for data in (clean(made, BAD), made):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        scaler = GradScaler("cpu", init_scale=2.0**12)
        with guarded(model, optimizer, scaler=scaler, policy=policy) as guard:
            for x in programs.loader(data):
                optimizer.zero_grad()
                scaler.scale((model(x) - 1).square().mean()).backward()
                scaler.step(optimizer)
                scaler.update()
        runs.append(everything(model, optimizer, scaler))
    assert sum(guard.report.counts.values()) == 3
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    if policy == "skip_batch":
        assert different(*runs) == []


def test_steps_that_a_scaler_leaves_out_while_it_probes_are_its_own() -> None:
    runs = []
    for watched in (False, True):
        model = programs.net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
        if watched:
            with guarded(model, optimizer, scaler=scaler, policy="skip_batch") as guard:
                amp_loop(model, optimizer, scaler, programs.loader(batches()))
            assert guard.report.healthy
            assert guard.report.steps == COUNT
        else:
            amp_loop(model, optimizer, scaler, programs.loader(batches()))
        runs.append(everything(model, optimizer, scaler))
        assert scaler.get_scale() < 2.0**127, "it never probed: this test cannot fail"
    assert different(*runs) == []
