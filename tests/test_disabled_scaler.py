"""A `GradScaler(enabled=False)`, as nearly every script has one, is as good as none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

import nanhunt
from nanhunt.core.hunting.loop import LoopHunt

BAD_AT = 2


class Program:
    """A small training; its third step takes the logarithm of 0 if it is broken."""

    def __init__(self, scaler: GradScaler | None, broken: bool) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.scaler, self.broken = scaler, broken
        self.x = torch.randn(8, 4)
        self.steps = 0

    def step(self) -> None:
        y = self.model(self.x).pow(2)
        y = (y * 0).log() if self.broken and self.steps == BAD_AT else y
        self.steps += 1
        self.optimizer.zero_grad()
        if self.scaler is None:
            y.mean().backward()
            self.optimizer.step()
        else:
            self.scaler.scale(y.mean()).backward()
            self.scaler.unscale_(self.optimizer)
            self.scaler.step(self.optimizer)
            self.scaler.update()

    @property
    def given(self) -> dict[str, Any]:
        return {} if self.scaler is None else {"scaler": self.scaler}

    def end(self) -> list[torch.Tensor]:
        return [*self.model.parameters(), *self.model.buffers(), torch.get_rng_state()]


def told(found: nanhunt.Report) -> Any:
    """What a report says, without seconds."""
    return {**found.to_dict(), "costs": {}}


def hunted(program: Program) -> Any:
    return told(nanhunt.hunt(program.model, program.step, steps=5, progress=False))


def hunted_given(program: Program) -> Any:
    options = {"optimizer": program.optimizer, **program.given}
    return told(nanhunt.hunt(program.model, program.step, steps=5, progress=False, **options))


def stepped(program: Program) -> Any:
    with nanhunt.Hunt(program.model, program.step, progress=False, **program.given) as hunt:
        hunt.into()
        hunt.over()
        hunt.resume()
        hunt.back()
        for _ in range(BAD_AT + 1):
            hunt.step()
        return told(hunt.report)


def watched_loop(program: Program) -> Any:
    with LoopHunt(program.model, progress=False, **program.given) as hunt:
        for _ in range(5):
            program.step()
    return told(hunt.report)


def guarded(program: Program) -> Any:
    guard = nanhunt.guard(
        program.model, program.optimizer, policy="skip_batch", bundle=None, **program.given
    )
    with guard:
        for _ in range(5):
            program.step()
    return guard.report


def preflown(program: Program) -> Any:
    flight = nanhunt.preflight(program.model, program.step, **program.given)
    return [(fact.kind, fact.text) for fact in flight.facts]


def compared(program: Program) -> Any:
    bare = Program(None, broken=False)
    found = nanhunt.compare((bare.model, bare.step), (program.model, program.step))
    return found.first_dtype, found.first_value, found.weights_shared


WAYS = [hunted, hunted_given, stepped, watched_loop, guarded, preflown, compared]


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_disabled_scaler_changes_neither_what_is_said_nor_a_bit(
    way: Callable[[Program], Any], broken: bool
) -> None:
    without = Program(None, broken)
    expected = way(without)
    program = Program(GradScaler("cpu", enabled=False), broken)
    assert way(program) == expected
    assert all(map(torch.equal, program.end(), without.end()))


def test_a_disabled_scaler_before_an_enabled_one_does_not_scale_twice() -> None:
    program = Program(GradScaler("cpu", init_scale=4.0), broken=False)
    off = GradScaler("cpu", enabled=False)

    def step() -> None:
        assert program.scaler is not None
        program.optimizer.zero_grad()
        loss = off.scale(program.model(program.x).pow(2).mean())
        program.scaler.scale(loss).backward()
        program.scaler.step(program.optimizer)
        program.scaler.update()

    assert nanhunt.hunt(program.model, step, steps=8, progress=False).findings == ()


SCRIPT = """
import torch
net = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu", enabled=False)
for scale in (1.0, 1.0, float("inf")):
    optimizer.zero_grad()
    scaler.scale(net(torch.ones(1, 2) * scale).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
"""


def test_a_script_with_a_disabled_scaler_is_watched(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "nanhunt", "run", "train.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr
    finding = nanhunt.load_report(tmp_path / "train.nanhunt.json").finding
    assert finding is not None
    # The script itself made the input infinite; no loader gave it.
    assert (finding.step, finding.phase) == (2, "loop")
    assert list((tmp_path / "nanhunt_bundles").iterdir())
