"""What is said of a loop watched from outside whose model was given, or returned, what is bad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nanhunt.core.guard.script import ScriptRun
from nanhunt.core.hunting.loop import LoopHunt
from nanhunt.records.report import Finding, Report

BAD_AT = 2


def watched(model: nn.Module, loss_of: Callable[[int], Tensor]) -> Report:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with LoopHunt(model, progress=False, complex_half=False) as hunt:
        for step in range(4):
            optimizer.zero_grad()
            loss_of(step).backward()
            optimizer.step()
    return hunt.report


def found(report: Report) -> Finding:
    assert report.finding is not None, str(report)
    return report.finding


def test_an_input_that_the_loop_computes_is_not_called_data() -> None:
    model = nn.Linear(3, 1)
    report = watched(model, lambda step: model(torch.ones(2, 3) / (step != BAD_AT)).square().mean())
    finding = found(report)
    assert (finding.step, finding.phase, finding.op) == (BAD_AT, "loop", None)
    assert finding.cause == "not_established"
    assert "the loop's own code made that" in finding.explanation
    assert "data" not in str(report).splitlines()[0]


def test_a_bad_batch_of_a_loader_is_called_data() -> None:
    data = torch.ones(4, 3)
    data[BAD_AT, 1] = float("nan")
    model = nn.Linear(3, 1)
    with ScriptRun(None) as watch:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for x in DataLoader(data, 1):  # type: ignore[arg-type]
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    assert watch.report is not None
    finding = found(watch.report)
    assert (finding.step, finding.phase, finding.cause) == (BAD_AT, "data", "bad_data")


class Head(nn.Module):
    """Returns logarithms, or logits with a mask in them."""

    def __init__(self, masks: bool) -> None:
        super().__init__()
        self.linear, self.masks = nn.Linear(3, 3), masks

    def forward(self, x: Tensor, scale: float = 1.0) -> Any:
        out = self.linear(x)
        if self.masks:
            return out.masked_fill(torch.eye(3, dtype=torch.bool), -float("inf"))
        return (out.abs() * scale).log()


def test_a_negative_infinity_that_arithmetic_of_the_model_made_is_placed_there() -> None:
    model = Head(masks=False)
    finding = found(
        watched(
            model, lambda step: model(torch.ones(3, 3), float(step != BAD_AT)).softmax(-1).mean()
        )
    )
    assert (finding.step, finding.op) == (BAD_AT, "aten.log.default")
    assert finding.source is not None


def test_a_mask_in_the_models_outputs_is_not_accused_of_the_loops_own_fault() -> None:
    model = Head(masks=True)
    finding = found(
        watched(model, lambda step: model(torch.ones(3, 3)).softmax(-1).div(step != BAD_AT).mean())
    )
    assert (finding.step, finding.op, finding.source) == (BAD_AT, None, None)
