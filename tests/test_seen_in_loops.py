"""What a hunt of a step sees is seen in foreign loops and by guards as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

import nanhunt
from nanhunt.core.hunting.loop import LoopHunt

BAD_AT, STEPS = 3, 8
Loop = Callable[[nn.Module, SGD], Iterator[None]]


def hiding(model: nn.Module, optimizer: SGD) -> Iterator[None]:
    yield from _hiding(model, optimizer, scaled=False)


def hiding_under_a_scaler(model: nn.Module, optimizer: SGD) -> Iterator[None]:
    yield from _hiding(model, optimizer, scaled=True)


def _hiding(model: nn.Module, optimizer: SGD, scaled: bool) -> Iterator[None]:
    """Puts its gradients through nan_to_num."""
    scaler, x = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=scaled), torch.randn(8, 4)
    for number in range(STEPS):
        optimizer.zero_grad()
        y = model(x).pow(2)
        if number == BAD_AT:
            y = y + (y * 0).sqrt()
        scaler.scale(y.mean()).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            torch.nan_to_num(parameter.grad, out=parameter.grad)
        scaler.step(optimizer)
        scaler.update()
        yield


def leaving_out(model: nn.Module, optimizer: SGD) -> Iterator[None]:
    """Leaves out the updates of bad gradients by hand."""
    x = torch.randn(8, 4)
    for number in range(STEPS):
        optimizer.zero_grad()
        y = model(x).pow(2)
        if number == BAD_AT:
            y = y * (y * 0).sqrt()
        y.mean().backward()
        if nn.utils.clip_grad_norm_(model.parameters(), 1.0).isfinite():
            optimizer.step()
        yield


class Expanded(nn.Module):
    """Has a buffer whose elements are one."""

    gain: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.register_buffer("gain", torch.ones(1).expand(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.gain


def expanded(model: nn.Module, optimizer: SGD) -> Iterator[None]:
    for number in range(STEPS):
        optimizer.zero_grad()
        y = model(torch.randn(8, 4))
        (y * 0).log().mean().backward() if number == BAD_AT else y.mean().backward()
        optimizer.step()
        yield


class Written(nn.Module):
    """Writes a parameter, which is trained as well, while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.gain = nn.Linear(4, 4), nn.Parameter(torch.ones(4))
        self.value = 1.0

    def forward(self, x: Tensor) -> Tensor:
        self.gain.data[0] = self.value
        return self.inner(x) * self.gain


def written(model: nn.Module, optimizer: SGD) -> Iterator[None]:
    assert isinstance(model, Written)
    for number in range(STEPS):
        optimizer.zero_grad()
        model.value = float("nan") if number == BAD_AT else 1.0
        model(torch.randn(8, 4)).mean().backward()
        optimizer.step()
        yield


LOOPS: list[tuple[Loop, Callable[[], nn.Module]]] = [
    (hiding, lambda: nn.Linear(4, 1)),
    (hiding_under_a_scaler, lambda: nn.Linear(4, 1)),
    (leaving_out, lambda: nn.Linear(4, 1)),
    (expanded, Expanded),
    (written, Written),
]


def made(make: Callable[[], nn.Module]) -> tuple[nn.Module, SGD]:
    torch.manual_seed(0)
    model = make()
    return model, SGD(model.parameters(), lr=1e-3)


@pytest.mark.parametrize(("loop", "make"), LOOPS)
def test_a_hunt_of_a_loop_finds_the_step_and_undoes_it(
    loop: Loop, make: Callable[[], nn.Module]
) -> None:
    model, optimizer = made(make)
    with LoopHunt(model, progress=False) as hunt:
        for _ in loop(model, optimizer):
            pass
    finding = hunt.report.finding
    assert finding is not None
    assert finding.step == BAD_AT
    assert finding.cause != "weights_bad_before"
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(("loop", "make"), LOOPS[-2:])
def test_a_guard_skips_the_step_and_nothing_else(loop: Loop, make: Callable[[], nn.Module]) -> None:
    model, optimizer = made(make)
    with nanhunt.guard(model, optimizer, policy="skip_batch", bundle=None) as guard:
        for _ in loop(model, optimizer):
            pass
    assert guard.report.counts == {"skipped": 1}
    assert guard.report.events[0].step == BAD_AT
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def overflowing(model: nn.Module, optimizer: SGD) -> Iterator[None]:
    """Leaves out by hand what overflows for the loss scale alone."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    for _ in range(STEPS):
        optimizer.zero_grad()
        scaler.scale((model(torch.randn(8, 4)) - 1e5).pow(2).mean()).backward()
        scaler.unscale_(optimizer)
        if nn.utils.clip_grad_norm_(model.parameters(), 1.0).isfinite():
            scaler.step(optimizer)
        optimizer.zero_grad()
        scaler.update(8.0)
        yield


def test_a_hunt_of_a_loop_lets_a_loop_leave_out_what_its_scale_made_overflow() -> None:
    model, optimizer = made(lambda: nn.Linear(4, 1))
    with LoopHunt(model, progress=False) as hunt:
        for _ in overflowing(model, optimizer):
            pass
    assert hunt.report.findings == ()
    assert hunt.report.steps_run > 1
