"""The command `nanhunt doctor` in processes of its own, up to two of the stories."""

from __future__ import annotations

import copy
import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from stories import fourier_inpainting, resumed_diffusion
from torch import nn

import nanhunt
from nanhunt import cli
from tests.doctor import files
from tests.doctor.damaged import HOSTILE, poisoned
from tests.forks import nanhunt_command
from tests.test_project import NOTEBOOK_PACKAGES, without

ROOT = Path(nanhunt.__file__).resolve().parent.parent
STORIES = ROOT / "examples" / "stories"


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return nanhunt_command("doctor", *arguments)


def save(path: Path, story: Any) -> Path:
    tree = {"model": story.model.state_dict(), "optimizer": story.extras["optimizer"].state_dict()}
    return files.torch_file(path, tree)


def load(path: Path, story: Any) -> None:
    tree = torch.load(path, weights_only=True)
    story.model.load_state_dict(tree["model"])
    story.extras["optimizer"].load_state_dict(tree["optimizer"])


# -- story C: poisoned BatchNorm statistics ------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inpainting network's checkpoints of twelve steps; step 6 poisons it."""
    folder = tmp_path_factory.mktemp("inpainting") / "run 1"
    story = fourier_inpainting.build(broken=True)
    for step in range(12):
        story.step_fn()
        save(folder / f"step_{step:04}.pt", story)
    assert story.extras["evaluate"]() == (0, 4), "0 valid batches"
    return folder


def test_the_moment_when_it_went_bad_is_found_in_the_folder(run: Path) -> None:
    done = command(run)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("✗ Bad from step_0006.pt on: ")
    assert "last one before it: step_0005.pt" in done.stdout
    assert "of 12 read" in done.stdout


def test_weights_are_acquitted_and_the_buffers_named(run: Path) -> None:
    (found,) = json.loads(command(run / "step_0011.pt", "--json").stdout)
    diagnosis = nanhunt.Diagnosis.from_dict(found)
    bad = [problem for problem in diagnosis.problems if problem.severity == "critical"]
    assert {problem.role for problem in bad} == {"buffer"}
    assert {problem.key for problem in bad} >= {"model.scales.0.ffc.local_conv.1.running_mean"}
    assert all(problem.repair for problem in bad)
    assert diagnosis.repairable
    in_half = [p for p in diagnosis.problems if p.kind == "statistics_in_half"]
    assert len(in_half) == 2


def test_the_poisoned_run_is_repaired_resumed_and_recalibrated(run: Path) -> None:
    path = run / "step_0011.pt"
    before = path.read_bytes()
    done = command(path, "--fix", "--against", f"{STORIES / 'fourier_inpainting.py'}:build")
    assert done.returncode == 0, done.stdout + done.stderr
    fixed = run / "step_0011_FIXED.pt"
    assert str(fixed) in " ".join(done.stdout.split())
    assert path.read_bytes() == before
    assert command(fixed).returncode == 0

    story = fourier_inpainting.build(broken=True, onset=99)
    load(fixed, story)
    assert story.extras["evaluate"]() == (4, 4)
    generator = torch.Generator().manual_seed(3)
    data = [
        {
            "image": torch.rand(4, 3, 32, 32, generator=generator),
            "mask": (torch.rand(4, 1, 32, 32, generator=generator) > 0.2).float(),
        }
        for _ in range(8)
    ]
    reset = gap(story.model, data)
    nanhunt.recalibrate(story.model, data)
    assert gap(story.model, data) < 0.2 * reset
    for _ in range(3):
        story.step_fn()
    assert story.extras["clock"]["skipped"] == 0

    again = command(path, "--fix")
    assert again.returncode == 2
    assert "is there already" in again.stderr


def gap(model: nn.Module, data: list[dict[str, torch.Tensor]]) -> float:
    """How far eval() is from train mode, where a batch's own statistics are used."""
    training = copy.deepcopy(model).train()
    model.eval()
    with torch.no_grad():
        apart = [(model(**batch) - training(**batch)).abs().mean() for batch in data]
    model.train()
    return float(torch.stack(apart).mean())


# -- story E: NaN right after a resume ------------------------------------------------------------


@pytest.fixture
def resumed(tmp_path: Path) -> Path:
    story = resumed_diffusion.build(broken=True)
    for _ in range(3):
        story.step_fn()
    return save(tmp_path / "step_12200.pt", story)


DENOISER = f"{STORIES / 'resumed_diffusion.py'}:build"


def test_the_checkpoint_of_the_resumed_run_is_acquitted_in_one_line(resumed: Path) -> None:
    """It was the first suspect; the truth is a line of the loss (tests/test_stories.py)."""
    done = command(resumed, "--against", DENOISER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("✓ Healthy: ")
    assert "Denoiser: 5 of its 5 keys are in the file under model" in done.stdout


@pytest.mark.parametrize("how", ["wrapped", "another model", "poisoned moment"])
def test_a_checkpoint_that_does_break_the_resume_is_convicted(how: str, resumed: Path) -> None:
    tree = torch.load(resumed, weights_only=True)
    state = tree["model"]
    if how == "wrapped":
        tree["model"] = {f"_orig_mod.module.{name}": value for name, value in state.items()}
        expected = "saved['model'].items()}"
    elif how == "another model":
        state["time.weight"] = state["time.weight"][:500].clone()
        expected = "time.weight is [500, 16] in the file and [1000, 16] in the model"
    else:
        tree["optimizer"]["state"][1]["exp_avg_sq"][0, 0] = -1.0
        expected = "a second moment is negative"
    path = files.torch_file(resumed.with_name("other.pt"), tree)
    done = command(path, "--against", DENOISER)
    assert done.returncode == 1, done.stdout + done.stderr
    assert expected in " ".join(done.stdout.split())


# -- the command itself ---------------------------------------------------------------------------


def test_the_worst_of_several_files_decides_the_exit_code(tmp_path: Path) -> None:
    good = files.torch_file(tmp_path / "good.pt", files.whole())
    bad = files.torch_file(tmp_path / "bad.pt", poisoned("scaler", "scale", None, 0.0))
    (tmp_path / "none.pt").write_bytes(b"")
    assert command(good, good).returncode == 0
    assert command(good, bad, good).returncode == 1
    done = command(good, tmp_path / "none.pt", bad, tmp_path / "missing.pt", "--json")
    assert done.returncode == 2
    assert [d["path"] for d in json.loads(done.stdout)] == [str(good), str(bad)]
    empty, missing = done.stderr.splitlines()
    assert empty == f"nanhunt: {tmp_path / 'none.pt'}: the file is empty; take an earlier one"
    assert missing == f"nanhunt: {tmp_path / 'missing.pt'}: No such file or directory"


def test_weights_are_set_to_0_only_when_that_is_typed(tmp_path: Path) -> None:
    path = files.torch_file(tmp_path / "x.pt", poisoned("model", "head.bias", 0, float("nan")))
    done = command(path, "--fix")
    assert done.returncode == 1
    assert "still bad: model.head.bias" in done.stdout
    assert command(path, "--fix-weights").returncode == 0
    assert nanhunt.doctor(tmp_path / "x_FIXED.pt").healthy


def test_a_hostile_file_is_refused_in_one_line_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    monkeypatch.setenv("NANHUNT_CANARY", str(canary))
    paths = [
        files.torch_file(tmp_path / f"{name}.pt", {"x": make()}) for name, make in HOSTILE.items()
    ]
    done = command(*paths, "--fix")
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    for path, line in zip(paths, lines, strict=True):
        assert line.startswith(f"nanhunt: {path}: refused, nothing of it was executed")
    assert not canary.exists()


def test_nothing_but_torch_is_needed(tmp_path: Path) -> None:
    path = files.safetensors_file(tmp_path / "x.safetensors", files.Net().state_dict())
    program = f"import nanhunt; print(nanhunt.doctor({str(path)!r}).healthy)"
    others = (*NOTEBOOK_PACKAGES, "safetensors", "transformers")
    assert without(others, program).strip() == "True"


def test_a_model_that_is_not_there_is_told_before_anything_is_read(tmp_path: Path) -> None:
    done = command(tmp_path / "x.pt", "--against", "nothing.py:build")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "write it as FILE.py:FUNCTION" in line


def test_the_help_says_what_is_executed() -> None:
    text = " ".join(command("--help").stdout.split())
    for word in ("--fix ", "--fix-weights", "--against FILE.py:FUNCTION", "--json"):
        assert word in text
    assert "run this code of yours" in text


def test_names_in_a_file_that_is_refused_do_not_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    about = {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}
    path.write_bytes(files.header_bytes({"\x1b]0;mine\x07w": about}) + bytes(4))
    done = command(path)
    assert done.returncode == 2
    assert "\\u001b]0;mine\\u0007w: [2] F32 is not 4 bytes" in done.stderr
    assert "\x1b" not in done.stderr


def test_an_error_of_the_system_that_names_no_file_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when the disk is full while the copy is written."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = files.torch_file(tmp_path / "x.pt", poisoned("scaler", "scale", None, 0.0))
    monkeypatch.setattr(os, "fsync", full)
    assert cli.main(["doctor", str(path), "--fix"]) == 2
    assert capsys.readouterr().err == "nanhunt: [Errno 28] No space left on device\n"
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]
