"""Killed while it writes a repaired copy: the final name holds all of it, or nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import nanhunt
from tests.doctor import files

KILLS = 50
# Says when it is about to begin, so that the time of the import is not what is measured.
FIX = """
import sys
from nanhunt.core.doctor.doctor import doctor
for line in sys.stdin:
    print("begin", flush=True)
    doctor(sys.argv[1], fix=True)
    print("done", flush=True)
"""


def start(path: Path) -> subprocess.Popen[str]:
    root = Path(nanhunt.__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", FIX, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout is not None
    assert process.stdout.readline() == "begin\n"
    return process


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["x.safetensors", "x.pt", "folder"])
def test_a_killed_repair_leaves_nothing_half_written_under_the_final_name(
    kind: str, tmp_path: Path
) -> None:
    state = {f"w{n}": torch.randn(1 << 20) for n in range(10)}  # 40 MB: takes a while to write
    state["bn.running_mean"] = torch.tensor([float("inf"), 1.0])
    state["bn.running_var"] = torch.ones(2)
    if kind == "folder":
        path, target = files.sharded(tmp_path / "x", state), tmp_path / "x_FIXED"
    else:
        write = files.torch_file if kind == "x.pt" else files.safetensors_file
        path = write(tmp_path / kind, state)
        target = tmp_path / f"x_FIXED{path.suffix}"
    original = files.everything_in(path)
    process = start(path)
    begun = time.monotonic()
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    whole = time.monotonic() - begun
    process.communicate()
    wanted = list(files.everything_in(target).values())
    assert wanted != list(original.values())
    remove(target)

    dice = random.Random(kind)
    complete = drafts = 0
    for _ in range(KILLS // (1 if kind == "x.pt" else 2)):
        process = start(path)
        time.sleep(dice.uniform(0, 1.2 * whole))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if target.exists():
            assert list(files.everything_in(target).values()) == wanted
            complete += 1
            remove(target)
        for left in tmp_path.glob(".*"):
            drafts += 1
            remove(left)
    assert files.everything_in(path) == original
    assert drafts, "no kill fell into the writing: the test has shown nothing"


def remove(path: Path) -> None:
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    else:
        path.unlink()
