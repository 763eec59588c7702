"""Loops as people write them: the healthy ones are left in peace, the flawed ones are told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import Replicate, distribute_module, distribute_tensor
from torch.distributed.tensor import init_device_mesh as device_mesh
from torch.optim import SGD, AdamW
from torch.utils.data import DataLoader, TensorDataset

import nanhunt

Step = Callable[[], Tensor]
SMALL = 8.0  # a loss scale


def hunted(model: nn.Module, step: Step, steps: int = 30) -> nanhunt.Report:
    return nanhunt.hunt(model, step, steps=steps, progress=False, trials=False)


def linear() -> tuple[nn.Linear, SGD]:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    return model, SGD(model.parameters(), lr=1e-2)


def scaler_of(interval: int = 2000) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=SMALL, growth_interval=interval)


# -- how often ----------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 2])
def test_a_long_healthy_run_steps_often_enough(every: int) -> None:
    model, optimizer = linear()
    count = itertools.count(1)

    def step() -> Tensor:
        x = torch.randn(8, 4)
        loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean() / every
        loss.backward()
        if next(count) % every == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss

    assert hunted(model, step, 1_100).findings == ()


def test_a_backward_after_the_loop_over_batches_is_a_finding() -> None:
    model, optimizer = linear()
    data = TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
    loader = DataLoader(data, batch_size=4)

    def epoch() -> Tensor:
        loss = torch.zeros(())
        for x, y in loader:
            optimizer.zero_grad()
            loss = (model(x) - y).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    finding = hunted(model, epoch).finding
    assert finding is not None
    assert finding.kind == "not_training"
    assert "16" in finding.explanation


# -- scalers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_accumulation_with_a_scaler_is_not_scaled_twice(seed: int) -> None:
    model, optimizer = linear()
    torch.manual_seed(seed)
    scaler = scaler_of()

    def step() -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for _ in range(4):  # each loss dies before the next: memory comes again
            loss = (model(torch.randn(8, 4)) - 1).pow(2).mean() / 4
            scaler.scale(loss).backward()
            total += loss.detach()
        scaler.step(optimizer)
        scaler.update()
        return total

    assert hunted(model, step).findings == ()


def test_a_guard_sees_every_infinite_loss_of_accumulation_with_a_scaler() -> None:
    model, optimizer = linear()
    scaler = scaler_of()
    with nanhunt.guard(model, optimizer, scaler=scaler, policy="skip_batch", bundle=None) as guard:
        for number in range(30):
            optimizer.zero_grad()
            for part in range(4):
                loss = model(torch.randn(8, 4)).pow(2).mean() / 4
                if number % 3 == 2 and part == 2:
                    loss = loss + torch.tensor(float("inf"))
                scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert guard.report.counts == {"skipped": 10}


def leaving_out(bad: tuple[int, ...]) -> tuple[nn.Module, Step]:
    """Leaves out every fifth update, and those of bad gradients, by hand."""
    model, optimizer = linear()
    scaler, count = scaler_of(interval=2), itertools.count()

    def step() -> Tensor:
        number = next(count)
        optimizer.zero_grad()
        y = model(torch.randn(8, 4)).pow(2)
        if number in bad:
            y = y * (y * 0).sqrt()
        loss = y.mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if number % 5 == 3 or not norm.isfinite():
            optimizer.zero_grad()
            scaler.update()
            return loss
        scaler.step(optimizer)
        scaler.update()
        return loss

    return model, step


def test_an_update_left_out_by_hand_is_no_accumulation() -> None:
    assert hunted(*leaving_out(bad=())).findings == ()


def test_bad_gradients_whose_update_is_left_out_by_hand_are_found() -> None:
    finding = hunted(*leaving_out(bad=(4, 5))).finding
    assert finding is not None
    assert (finding.step, finding.cause) == (4, "sqrt_gradient_at_zero")


def test_an_overflow_of_the_loss_scale_left_out_by_hand_is_no_finding() -> None:
    model, optimizer = linear()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = (model(torch.randn(8, 4)) - 1e5).pow(2).mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        if nn.utils.clip_grad_norm_(model.parameters(), 1.0).isfinite():
            scaler.step(optimizer)
        optimizer.zero_grad()
        scaler.update()
        return loss

    assert hunted(model, step).findings == ()


def test_places_that_a_line_search_leaves_are_no_finding() -> None:
    model, _ = linear()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    x, count = torch.randn(8, 4), itertools.count()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) - 1).pow(2).mean()
        loss.backward()
        if next(count) % 5 == 1:  # a place that the search has tried in vain
            model.zero_grad()
            (model(x) * 0).sqrt().mean().backward()
            model.zero_grad()
            (model(x) - 1).pow(2).mean().backward()
        return loss

    def step() -> Tensor:
        return optimizer.step(closure).detach()

    model.bias.requires_grad_(False)
    report = nanhunt.hunt(model, step, optimizer=optimizer, steps=6, progress=False, trials=False)
    assert not [finding for finding in report.findings if "thrown away" in str(finding.reaches)]


def test_gradients_of_a_second_backward_that_are_zeroed_are_no_finding() -> None:
    """The discriminator gets gradients of the generator's loss, and forgets them."""
    torch.manual_seed(0)
    gen, disc = nn.Linear(4, 4), nn.Linear(4, 1)
    first, second = SGD(gen.parameters(), lr=1e-3), SGD(disc.parameters(), lr=1e-3)

    def step() -> Tensor:
        second.zero_grad()
        fake = gen(torch.randn(8, 4))
        (disc(torch.randn(8, 4)) - disc(fake.detach())).pow(2).mean().backward()
        second.step()
        first.zero_grad()
        loss = disc(fake).pow(2).mean()
        loss.backward()
        first.step()
        second.zero_grad()
        return loss

    report = nanhunt.hunt({"gen": gen, "disc": disc}, step, steps=24, progress=False)
    assert report.findings == ()


# -- tensors of other kinds -----------------------------------------------------------------------


class Scaled(nn.Module):
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(1).expand(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.scale


def expanded(where: str, bad_at: int) -> tuple[nn.Module, Step]:
    torch.manual_seed(0)
    model = Scaled() if where == "buffer" else nn.Linear(4, 4)
    weights = torch.rand(8, 1).expand(8, 4) if where == "variable" else torch.rand(8, 4)
    optimizer, x = torch.optim.Adam(model.parameters(), lr=0.01), torch.randn(8, 4)
    count = itertools.count()

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) * weights).pow(2).mean()
        loss = (loss * 0).log() if next(count) == bad_at else loss
        loss.backward()
        optimizer.step()
        return loss

    return model, step


@pytest.mark.parametrize("where", ["buffer", "variable"])
def test_expanded_tensors_are_watched(where: str) -> None:
    assert hunted(*expanded(where, bad_at=-1), steps=4).findings == ()


@pytest.mark.parametrize("where", ["buffer", "variable"])
def test_a_step_with_expanded_tensors_is_undone_and_explained(where: str) -> None:
    finding = hunted(*expanded(where, bad_at=2)).finding
    assert finding is not None
    assert (finding.step, finding.cause) == (2, "log_of_zero")


@pytest.mark.parametrize("where", ["buffer", "variable"])
def test_a_preflight_puts_expanded_tensors_back(where: str) -> None:
    assert nanhunt.preflight(*expanded(where, bad_at=-1)).warnings == ()


@pytest.fixture
def one_process() -> Iterator[None]:
    store = dist.HashStore()
    dist.init_process_group("gloo", rank=0, world_size=1, store=store)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_a_model_of_distributed_tensors_is_hunted() -> None:
    torch.manual_seed(0)
    mesh = device_mesh("cpu", (1,))
    model = distribute_module(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), mesh)
    optimizer, count = torch.optim.Adam(model.parameters(), lr=0.01), itertools.count()
    x = distribute_tensor(torch.randn(8, 4), mesh, [Replicate()])

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss = (loss * 0).log() if next(count) == 2 else loss
        loss.backward()
        optimizer.step()
        return loss.detach()

    finding = hunted(model, step).finding
    assert finding is not None
    assert finding.step == 2


# -- parameters that cannot move ------------------------------------------------------------------


class LowRank(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, base.in_features) * 0.1)
        self.up = nn.Parameter(torch.zeros(base.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def test_adapters_that_came_after_the_optimizer_are_a_finding() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    model[0] = LowRank(model[0])
    x, y = torch.randn(16, 4), torch.randn(16, 1)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) - y).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    finding = hunted(model, step).finding
    assert finding is not None
    assert finding.kind == "not_training"
    assert "0.down" in " ".join(finding.evidence)


def test_gains_that_cannot_move_in_bfloat16_are_a_finding() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 1))
    model.bfloat16()
    optimizer = AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)

    def step() -> Tensor:
        x = torch.randn(16, 8, dtype=torch.bfloat16)
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    findings = hunted(model, step, steps=40).findings
    assert any("1.weight" in " ".join(found.evidence) for found in findings)
