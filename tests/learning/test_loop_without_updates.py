"""A loop watched from outside in which no optimizer ever steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nanhunt.core.hunting.loop import LoopHunt

KINDS = ["optimizer.zero_grad", "model.zero_grad", "by hand", "accumulates", "skipped"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_loop_that_zeroes_gradients_for_nothing_is_convicted(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu")
    with LoopHunt(model, progress=False, complex_half=False) as hunt:
        for _ in range(30):
            if kind == "model.zero_grad":  # an attack, or a map of what the model looks at
                model.zero_grad()
            elif kind != "accumulates":
                optimizer.zero_grad()
            loss = model(torch.randn(6, 4)).square().mean()
            if kind == "skipped":
                scaler.scale(loss).backward()
                assert model.weight.grad is not None
                model.weight.grad.fill_(float("inf"))
                scaler.step(optimizer)
                scaler.update()
                continue
            loss.backward()
            if kind == "by hand":
                with torch.no_grad():
                    for parameter in model.parameters():
                        assert parameter.grad is not None
                        parameter -= 0.05 * parameter.grad
    finding = hunt.report.finding
    if kind == "optimizer.zero_grad":
        assert finding is not None
        assert (finding.kind, finding.cause) == ("not_training", "optimizer_never_steps")
        assert "30 times" in finding.explanation
        assert "0 updates in 30 backward passes" in finding.explanation
        assert hunt.report.status == "finding"
    else:
        assert finding is None, str(hunt.report)
