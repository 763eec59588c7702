"""What is training: backward or gradients by hand, an optimizer of the model or of copies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nanhunt
from nanhunt.errors import NoBackwardError, NoOptimizerError


def filling(steps: int) -> tuple[nn.Module, Any]:
    """Fills a memory for a while, and learns from then on."""
    torch.manual_seed(0)
    model, memory = nn.Linear(4, 1), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> Tensor | None:
        x = torch.randn(6, 4)
        with torch.no_grad():
            memory.append((x, model(x) + x.sum(1, keepdim=True)))
        if len(memory) <= steps:
            return None
        optimizer.zero_grad()
        loss = (model(memory[0][0]) - memory[0][1]).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def test_steps_that_only_fill_a_memory_are_watched() -> None:
    model, step = filling(20)
    report = nanhunt.hunt(model, step, steps=40, progress=False)
    assert (report.status, report.steps_run) == ("healthy", 40)
    assert not any("backward" in note for note in report.notes)


def test_a_run_without_any_backward_says_so() -> None:
    model, step = filling(20)
    report = nanhunt.hunt(model, step, steps=10, progress=False)
    assert any("no step has called backward()" in note for note in report.notes)
    model.eval()
    report = nanhunt.hunt(model, step, steps=5, progress=False)
    assert not any("backward" in note for note in report.notes)


def test_a_backward_forgotten_later_is_refused_at_the_first_loss() -> None:
    model, count = nn.Linear(4, 1), 0

    def step() -> Tensor | None:
        nonlocal count
        count += 1
        return model(torch.ones(2, 4)).mean() if count > 3 else None

    with pytest.raises(NoBackwardError):
        nanhunt.hunt(model, step, steps=9, progress=False)
    assert count == 3  # it has been undone


def half(bad_at: int) -> tuple[nn.Module, list[Tensor], Any]:
    """Weights in bfloat16, and an optimizer of copies in float32 whose way back goes wrong."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1).bfloat16()
    masters = [p.detach().float().requires_grad_() for p in model.parameters()]
    optimizer, count = torch.optim.SGD(masters, lr=0.05), 0

    def step() -> Tensor:
        nonlocal count
        model.zero_grad()
        loss = model(torch.ones(2, 4).bfloat16()).float().pow(2).mean()
        loss.backward()
        for master, parameter in zip(masters, model.parameters(), strict=True):
            master.grad = parameter.grad.float()
        optimizer.step()
        with torch.no_grad():
            for master, parameter in zip(masters, model.parameters(), strict=True):
                parameter.copy_(master / (count != bad_at))
        count += 1
        return loss

    return model, masters, step


def test_parameters_that_are_copied_from_an_optimizers_own_are_watched_and_put_back() -> None:
    expected, others, bare = half(bad_at=-1)
    for _ in range(3):
        bare()
    model, masters, step = half(bad_at=3)
    finding = nanhunt.hunt(model, step, steps=6, progress=False, trials=False).finding
    assert finding is not None
    assert (finding.step, finding.kind) == (3, "inf")
    assert finding.source is not None
    assert "copy_(master / " in finding.source.code
    pairs = zip([*model.parameters(), *masters], [*expected.parameters(), *others], strict=True)
    assert all(torch.equal(found, bits) for found, bits in pairs)


def test_an_optimizer_that_gets_no_gradient_trains_nothing() -> None:
    model, other = nn.Linear(4, 1), nn.Linear(4, 1)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)

    def step() -> None:
        model(torch.ones(2, 4)).mean().backward()
        optimizer.step()

    with pytest.raises(NoOptimizerError):
        nanhunt.hunt(model, step, optimizer=optimizer, progress=False)


def test_an_update_without_gradients_is_no_training() -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> Tensor:
        loss = model(torch.ones(2, 4)).mean()
        optimizer.step()
        return loss

    with pytest.raises(NoBackwardError):
        nanhunt.hunt(model, step, progress=False)
    facts = nanhunt.preflight(model, step)
    assert "no_backward" in {fact.kind for fact in facts.warnings}
