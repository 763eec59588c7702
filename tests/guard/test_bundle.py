"""A bundle holds what is needed to hunt a failing step in another process."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nanhunt
from nanhunt.core.guard import bundle
from nanhunt.errors import CheckpointError, GuardStoppedError, UsageError
from tests.forks import python_script
from tests.guard import programs

ROOT = Path(nanhunt.__file__).resolve().parent.parent

# One program for both processes: `write` guards its loop, `hunt` hunts the bundle.
PROGRAM = """
import sys
import torch
from torch import nn
from torch.utils.data import DataLoader
import nanhunt

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))

    def forward(self, x):
        y = self.body(x)
        return torch.exp(y.abs() * x.abs().amax())  # culprit

task, path, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.manual_seed(seed)
net = Net()
optimizer = torch.optim.Adam(net.parameters())
scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

def step(batch):
    x, name = batch["x"], batch["name"]
    optimizer.zero_grad()
    noise = torch.randn_like(x) * 0.1
    loss = net(x + noise).mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return loss

dice = torch.Generator().manual_seed(5)
data = [{"x": torch.randn(3, 4, generator=dice) * 0.1, "name": f"file {i}"} for i in range(9)]
data[5]["x"] *= 2000
if task == "hunt":
    report = nanhunt.hunt_bundle(path, net, step, progress=False, trials=False)
else:
    guard = nanhunt.guard(net, optimizer, scaler=scaler, policy="stop", bundle=path)
    try:
        with guard:
            for batch in DataLoader(data, batch_size=None):
                step(batch)
    except nanhunt.NanhuntError:
        pass
    print(guard.report.events[0].bundle)
if task == "hunt":
    report.save(sys.argv[4])
"""


def run(program: Path, *arguments: object) -> str:
    done = python_script(program, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bundle_is_hunted_to_the_same_finding_in_another_process(tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(PROGRAM, encoding="utf-8")
    path = run(program, "write", tmp_path / "kept", 0).strip()
    assert torch.load(path, weights_only=True)["step"] == 5
    reports = []
    for seed in (1, 2):  # their own first values and random numbers do not matter
        run(program, "hunt", path, seed, tmp_path / f"found {seed}")
        reports.append(nanhunt.load_report(tmp_path / f"found {seed}.nanhunt.json"))
    for report in reports:
        found = report.finding
        assert found is not None
        assert (found.step, found.op, found.kind) == (5, "aten.exp.default", "inf")
        assert found.source is not None
        assert found.source.code.endswith("# culprit")
        assert report.replay == "bit_exact"
    findings = [json.dumps(dataclasses.asdict(report.finding)) for report in reports]  # type: ignore[call-overload]
    assert findings[0] == findings[1]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("kept", torch.zeros(2), persistent=False)

    def forward(self, x: Any) -> Any:
        return self.linear(x).exp()


def program() -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = Net()
    return net, torch.optim.AdamW(net.parameters())


def loop(net: Net, optimizer: torch.optim.Optimizer, data: Any) -> None:
    for x in data:
        optimizer.zero_grad()
        net(x).sum().backward()
        optimizer.step()


def failing(folder: Path, data: Any, **options: Any) -> tuple[Any, Path]:
    """Runs a guarded loop to its failure; returns the guard and the bundle."""
    net, optimizer = program()
    guard = nanhunt.guard(net, optimizer, bundle=folder, **options)
    with pytest.raises(GuardStoppedError), guard:
        loop(net, optimizer, data(guard) if callable(data) else data)
    return guard, Path(guard.report.events[0].bundle)


def loud(count: int = 5, at: int = 3) -> list[torch.Tensor]:
    dice = torch.Generator().manual_seed(0)
    made = [torch.randn(2, 4, generator=dice) for _ in range(count)]
    made[at] *= 1e4
    return made


def test_the_bundle_holds_the_start_of_the_step_and_its_batch(tmp_path: Path) -> None:
    made = loud()
    net, optimizer = program()
    loop(net, optimizer, made[:3])
    _, path = failing(tmp_path, programs.loader(made))
    content = torch.load(path, weights_only=True)
    assert path.parent == tmp_path
    assert (content["step"], content["batches_known"]) == (3, "matched")
    assert torch.equal(content["batches"][0], made[3])
    assert len(content["batches"]) == 1
    for name, parameter in net.named_parameters():
        assert torch.equal(content["parameters"][name], parameter)
    assert "kept" in content["buffers"], "buffers that a state dict leaves out"
    (kept,) = content["optimizers"]
    mine = programs.flat(optimizer.state_dict(), "")
    assert programs.different(programs.flat(kept["state"], ""), mine) == []
    assert "loss" in content["bad"]


def test_a_loader_that_fetches_ahead_does_not_mislead(tmp_path: Path) -> None:
    made = loud()

    def ahead(_guard: Any) -> Any:
        iterator = iter(programs.loader(made))
        waiting = [next(iterator)]
        for batch in iterator:
            waiting.append(batch)
            yield waiting.pop(0)
        yield from waiting

    _, path = failing(tmp_path, ahead)
    (batch,) = torch.load(path, weights_only=True)["batches"]
    assert torch.equal(batch, made[3])


def test_batches_of_a_list_are_known_when_the_guard_hands_them_out(tmp_path: Path) -> None:
    made = loud()
    _, path = failing(tmp_path, lambda guard: guard.batches(made))
    content = torch.load(path, weights_only=True)
    assert content["batches_known"] == "told"
    assert torch.equal(content["batches"][0], made[3])


def test_without_batches_the_models_inputs_are_hunted(tmp_path: Path) -> None:
    _, path = failing(tmp_path, loud())
    assert torch.load(path, weights_only=True)["batches"] == []
    report = hunted(path)
    assert report.finding is not None
    assert report.finding.op == "aten.exp.default"


def hunted(path: Path, **options: Any) -> nanhunt.Report:
    torch.manual_seed(99)
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())

    def step(x: Any) -> None:
        optimizer.zero_grad()
        net(x).sum().backward()
        optimizer.step()

    return nanhunt.hunt_bundle(path, net, step, progress=False, **options)


def test_the_findings_have_the_number_of_the_step_in_the_loop(tmp_path: Path) -> None:
    _, path = failing(tmp_path, programs.loader(loud()))
    report = hunted(path)
    assert report.finding is not None
    assert report.finding.step == 3
    assert any(path.name in note for note in report.notes)


def test_no_more_bundles_than_asked_for_and_none_over_another(tmp_path: Path) -> None:
    for _ in range(2):
        data = loud()
        data[1] *= 1e4
        failing(tmp_path, programs.loader(data), policy="skip_batch", limit=2, total=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step_000001.nanhunt.pt",
        "step_000001_2.nanhunt.pt",
    ]


@pytest.mark.parametrize("links", [True, False])
def test_a_bundle_of_another_rank_that_appears_meanwhile_is_not_replaced(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All ranks of a distributed run keep the same step at the same moment."""
    rival = tmp_path / "step_000003.nanhunt.pt"

    def first_the_other(name: str) -> Any:
        own = getattr(os, name)

        def give(source: Any, target: Any) -> None:
            rival.write_text("the other rank's")
            if name == "link" and not links:
                raise OSError("no hard links here")
            own(source, target)

        return give

    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, first_the_other(name))
    path = bundle.write(tmp_path, {"step": 3})
    assert rival.read_text() == "the other rank's"
    assert path.name == "step_000003_2.nanhunt.pt"
    assert sorted(tmp_path.iterdir()) == [rival, path]


def test_a_bundle_that_cannot_be_written_does_not_end_the_loop(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    net, optimizer = program()
    with nanhunt.guard(net, optimizer, policy="skip_batch", bundle=blocked) as guard:
        loop(net, optimizer, programs.loader(loud()))
    assert guard.report.counts == {"skipped": 1}
    (note,) = guard.report.notes
    assert note.startswith("no bundle of step 3: ")


@pytest.mark.parametrize("policy", ["skip_batch", "rollback", "restore_buffers"])
def test_writing_a_bundle_changes_nothing_in_the_training(policy: str, tmp_path: Path) -> None:
    runs = []
    for folder in (None, tmp_path):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        with nanhunt.guard(model, optimizer, policy=policy, bundle=folder) as guard:
            for index, x in enumerate(programs.loader(programs.batches(20))):
                optimizer.zero_grad()
                (model(x) - 1).square().mean().backward()
                if index == 9:
                    model[1].running_mean.fill_(float("nan"))
                optimizer.step()
        assert guard.report.failures == 1
        runs.append(programs.everything(model, optimizer))
    assert programs.different(*runs) == []
    assert len(list(tmp_path.iterdir())) == 1


def test_a_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    _, path = failing(tmp_path, programs.loader(loud()))
    with pytest.raises(UsageError, match="does not fit the bundle: parameters"):
        nanhunt.hunt_bundle(path, nn.Linear(3, 3), lambda x: None)


@pytest.mark.parametrize("content", [b"", b"not a file of torch", None])
def test_a_file_that_is_no_bundle_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    if content is None:
        torch.save({"model": {}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        hunted(path)


def test_a_bundle_of_which_a_part_is_gone_is_refused(tmp_path: Path) -> None:
    _, path = failing(tmp_path, loud())
    content = torch.load(path, weights_only=True)
    for name in content.keys() - {"format", "version", "torch", "bad"}:
        torch.save({k: v for k, v in content.items() if k != name}, path)
        with pytest.raises(CheckpointError, match=f"damaged: it has no {name}"):
            hunted(path)
