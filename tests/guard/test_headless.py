"""`python -m nanhunt run train.py`: scripts in processes of their own, up to two of the stories."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

import nanhunt
from tests.forks import nanhunt_command, python_script

ROOT = Path(nanhunt.__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'examples'}"}

TRAIN = """
import sys, time
import torch
from torch import nn
from torch.utils.data import DataLoader
import beside

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.1))

    def forward(self, x, *, scale=1.0):
        return torch.exp((self.body(x) * scale).abs() * x.abs().amax())  # culprit

def main():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net(torch.ones(2, 4))
    optimizer = torch.optim.Adam(net.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled="amp" in sys.argv)
    data = [torch.randn(3, 4) * 0.1 for _ in range(9)]
    if "bad" in sys.argv:
        data[5] *= 2000
    for index, x in enumerate(DataLoader(data, batch_size=None)):
        optimizer.zero_grad()
        loss = net(x, scale=0.5).mean()
        if "raise" in sys.argv and index == 3:
            raise OSError("mine")
        if "wait" in sys.argv and index == 3:
            print("waiting", flush=True)
            time.sleep(60)
        try:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        except Exception:  # what scripts do; it must not hide the failure
            pass
    print(sum(p.double().sum().item() for p in net.parameters()), sys.argv, __name__)
    sys.exit(7 if "seven" in sys.argv else 0)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    path = tmp_path / "code" / "train.py"
    path.write_text(TRAIN, encoding="utf-8")
    (path.parent / "beside.py").write_text("", encoding="utf-8")
    return path


def command(
    script: Path, *arguments: str, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """`nanhunt run`."""
    words = ("run", *before, script, *arguments)
    return nanhunt_command(*words, cwd=script.parent.parent, environment=ENVIRONMENT)


def python(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """A new interpreter, whose exit nothing but the system has to tell."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


def test_a_healthy_script_does_what_it_does_alone(script: Path) -> None:
    for arguments in ((), ("seven", "--steps", "3"), ("amp",)):
        alone = python_script(script, *arguments, cwd=script.parent.parent)
        watched = command(script, *arguments)
        assert watched.stdout == alone.stdout != ""
        assert watched.returncode == alone.returncode
        assert watched.stderr == "nanhunt: 9 steps, nothing went bad\n"
    assert list(script.parent.parent.iterdir()) == [script.parent]


@pytest.mark.parametrize("amp", [(), ("amp",)])
def test_a_failing_script_leaves_its_report_its_bundle_and_a_code(
    script: Path, amp: tuple[str, ...]
) -> None:
    done = command(script, "bad", *amp)
    assert done.returncode == 3, done.stderr
    folder = script.parent.parent
    report = nanhunt.load_report(folder / "train.nanhunt.json")
    assert report.finding is not None
    assert (report.finding.step, report.finding.op) == (5, "aten.exp.default")
    assert report.finding.source is not None
    assert report.finding.source.code.endswith("# culprit")
    assert str(report) in done.stderr
    (bundle,) = (folder / "nanhunt_bundles").iterdir()
    content = torch.load(bundle, weights_only=True)
    assert (content["step"], content["batches_known"]) == (5, "matched")
    assert content["batches"][0].abs().max() > 100
    assert content["inputs"][0][1] == {"scale": 0.5}


def test_where_report_and_bundle_go_can_be_said(script: Path) -> None:
    done = command(script, "bad", before=("--report", "out/x", "--no-bundle"))
    assert done.returncode != 0
    (script.parent.parent / "out").mkdir()
    done = command(script, "bad", before=("--report", "out/x", "--no-bundle"))
    assert done.returncode == 3, done.stderr
    assert [p.name for p in (script.parent.parent / "out").iterdir()] == ["x.nanhunt.json"]
    assert not (script.parent.parent / "nanhunt_bundles").exists()


def test_an_exception_of_the_script_is_its_own(script: Path) -> None:
    folder = script.parent.parent
    alone = python(script, "raise", folder=folder)
    watched = python("-m", "nanhunt", "run", script, "raise", folder=folder)
    assert watched.returncode == alone.returncode == 1
    assert watched.stderr.startswith(alone.stderr)
    assert watched.stderr.endswith(
        "OSError: mine\n"
        "nanhunt: the script raised an exception after 3 steps; nothing bad was seen until then\n"
    )


def test_ctrl_c_is_the_scripts_own(script: Path) -> None:
    codes = []
    for how in ([], ["-m", "nanhunt", "run"]):
        with subprocess.Popen(
            [sys.executable, *how, str(script), "wait"],
            env=ENVIRONMENT,
            cwd=script.parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
            assert told.rstrip().endswith("KeyboardInterrupt")
            codes.append(process.returncode)
    assert codes[0] == codes[1] == -signal.SIGINT


def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = command(tmp_path / "a" / "none.py") if (tmp_path / "a").mkdir() is None else None
    assert done.returncode == 2
    assert "none.py: there is no such script" in done.stderr


def test_a_script_that_trains_nothing_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    script = tmp_path / "a" / "x.py"
    script.write_text("print('hello')")
    done = command(script)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert done.stderr == "nanhunt: nothing was trained that could be watched\n"


def test_a_script_with_a_guard_of_its_own_is_left_to_that(tmp_path: Path) -> None:
    text = """
    import nanhunt
    import torch
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with nanhunt.guard(net, optimizer, policy="skip_batch", bundle=None) as guard:
        for scale in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            net(torch.ones(1, 2) * scale).sum().backward()
            optimizer.step()
    print(guard.report.counts)
    """
    done = command(told_script(tmp_path, textwrap.dedent(text)))
    assert (done.returncode, done.stdout) == (0, "{'skipped': 1}\n"), done.stderr
    assert "a guard or a hunt of its own" in done.stderr


def test_the_batches_of_an_evaluation_are_not_kept(tmp_path: Path) -> None:
    text = """
    import gc, weakref
    import torch
    from torch.utils.data import DataLoader
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    class Made(torch.utils.data.Dataset):
        def __len__(self):
            return 50
        def __getitem__(self, index):
            seen.append(weakref.ref(x := torch.ones(1, 2)))
            return x
    seen = []
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    net.eval()
    with torch.no_grad():
        for x in DataLoader(Made(), batch_size=None):
            net(x)
    gc.collect()
    print(sum(ref() is not None for ref in seen), len(seen))
    """
    done = command(told_script(tmp_path, textwrap.dedent(text)))
    alive, made = map(int, done.stdout.split())
    assert made == 50
    assert alive <= 3


COMPILED_BY_JIT = """
import torch
net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
{line}
for scale in (1.0, 1.0, float("inf")):
    optimizer.zero_grad()
    {called}(torch.ones(1, 2) * scale).sum().backward()
    optimizer.step()
"""
UNSEEN = "not_reproduced: no call of the model was seen"


@pytest.mark.parametrize(
    ("line", "called", "replay"),
    [
        ("traced = torch.jit.trace(net, torch.ones(1, 2))", "net", "symptom"),
        ("traced = torch.jit.trace(net, torch.ones(1, 2))", "traced", UNSEEN),
        ("net = torch.jit.script(net)", "net", UNSEEN),
    ],
)
def test_a_script_that_traces_or_scripts_its_model_is_watched(
    line: str, called: str, replay: str, tmp_path: Path
) -> None:
    done = command(told_script(tmp_path, COMPILED_BY_JIT.format(line=line, called=called)))
    assert done.returncode == 3, done.stderr
    report = nanhunt.load_report(tmp_path / "train.nanhunt.json")
    assert report.replay == replay
    assert report.finding is not None
    assert report.finding.step == 2
    assert "loss" in report.finding.reaches


# -- the stories --------------------------------------------------------------------------------

INPAINTING = """
from stories import fourier_inpainting
story = fourier_inpainting.build(broken=True)
for _ in range(12):
    story.step_fn()
print("valid batches:", story.extras["evaluate"]())
"""

RESUMED = """
from stories import resumed_diffusion
story = resumed_diffusion.build(broken=True)
for _ in range(12):
    story.step_fn()
"""


def told_script(folder: Path, text: str) -> Path:
    (folder / "code").mkdir()
    script = folder / "code" / "train.py"
    script.write_text(text, encoding="utf-8")
    return script


def test_the_inpainting_run_is_caught_long_before_its_validation(tmp_path: Path) -> None:
    script = told_script(tmp_path, INPAINTING)
    assert python_script(script, cwd=tmp_path).stdout == "valid batches: (0, 4)\n"
    done = command(script)
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    finding = nanhunt.load_report(tmp_path / "train.nanhunt.json").finding
    assert finding is not None
    assert finding.source is not None
    assert finding.source.code == "mixed = mixed.half()"
    assert (finding.step, finding.module) == (6, "scales.0.ffc")
    assert any("local_conv.1.running_mean" in name for name in finding.reaches)


def test_the_resumed_runs_model_is_acquitted(tmp_path: Path) -> None:
    done = command(told_script(tmp_path, RESUMED))
    assert done.returncode == 3, done.stderr
    finding = nanhunt.load_report(tmp_path / "train.nanhunt.json").finding
    assert finding is not None
    assert finding.step == 3
    assert "happened in the loop's own code" in finding.explanation


HUNTED = """
import sys
import nanhunt
from stories import {story}
story = {story}.build(broken=True)
model, optimizer = story.model, story.extras["optimizer"]

def step(inputs):
    optimizer.zero_grad()
    loss = {loss}
    loss.backward()
    optimizer.step()

report = nanhunt.hunt_bundle(sys.argv[1], model, step, progress=False)
report.save("later")
"""
INPAINTING_LOSS = "(model(*inputs) - inputs[0]).abs().mean()"
RESUMED_LOSS = "(model(*inputs)[0] * inputs[1].half().sqrt().exp().float()[:, None]).sum()"


@pytest.mark.parametrize(
    ("program", "story", "loss", "expected"),
    [
        (INPAINTING, "fourier_inpainting", INPAINTING_LOSS, ("inf", "mixed = mixed.half()", 6)),
        (RESUMED, "resumed_diffusion", RESUMED_LOSS, ("inf", f"loss = {RESUMED_LOSS}", 3)),
    ],
)
def test_what_a_watched_script_leaves_is_hunted_and_cured_later(
    program: str, story: str, loss: str, expected: tuple[str, str, int], tmp_path: Path
) -> None:
    script = told_script(tmp_path, program)
    assert command(script).returncode == 3
    (bundle,) = (tmp_path / "nanhunt_bundles").iterdir()
    later = script.parent / "later.py"
    later.write_text(HUNTED.format(story=story, loss=loss), encoding="utf-8")
    done = python_script(later, bundle, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    finding = nanhunt.load_report(tmp_path / "later.nanhunt.json").finding
    assert finding is not None
    assert finding.source is not None
    assert (finding.kind, finding.source.code, finding.step) == expected
    assert any(trial.cured for trial in finding.trials)
