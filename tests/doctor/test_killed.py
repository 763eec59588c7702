"""Killed while it writes a repaired copy: the final name holds all of it, or nothing."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import nanhunt
from tests.doctor import files

KILLS = 50
# Forks a process at "go", so that torch is imported only once, and waits for it at "wait".
FIX = """
import os, sys
from nanhunt.checkpoints.doctor import doctor
doctor(sys.argv[1])  # loads what a repair needs; OMP_NUM_THREADS=1 keeps it free of threads
for line in sys.stdin:
    if line == "go\\n":
        child = os.fork()
        if not child:
            doctor(sys.argv[1], fix=True)
            os._exit(0)
        print(child, flush=True)
    else:
        os.waitpid(child, 0)
        print("ended", flush=True)
"""
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


@contextlib.contextmanager
def fixing(path: Path) -> Iterator[Callable[[float], None]]:
    """Gives a function that lets a process begin the repair and kills it after some seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", FIX, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(nanhunt.__file__).parent.parent),
        },
    )
    asks, answers = process.stdin, process.stdout
    assert asks is not None
    assert answers is not None

    def fix(seconds: float) -> None:
        asks.write("go\n")
        asks.flush()
        child = int(answers.readline())
        if seconds < float("inf"):
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)  # also when it has ended: its parent has not waited yet
        asks.write("wait\n")
        asks.flush()
        assert answers.readline() == "ended\n"

    with process:
        yield fix
        asks.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["x.safetensors", "x.pt", "folder"])
def test_a_killed_repair_leaves_nothing_half_written_under_the_final_name(
    kind: str, tmp_path: Path
) -> None:
    state = {f"w{n}": torch.randn(1 << 18) for n in range(10)}  # 10 MB: takes a while to write
    state["bn.running_mean"] = torch.tensor([float("inf"), 1.0])
    state["bn.running_var"] = torch.ones(2)
    if kind == "folder":
        path, target = files.sharded(tmp_path / "x", state), tmp_path / "x_FIXED"
    else:
        write = files.torch_file if kind == "x.pt" else files.safetensors_file
        path = write(tmp_path / kind, state)
        target = tmp_path / f"x_FIXED{path.suffix}"
    original = files.everything_in(path)
    dice = random.Random(kind)
    drafts = complete = 0
    with fixing(path) as fix:
        whole = []
        for _ in range(3):  # the first one waits for the disk to take the original
            begun = time.monotonic()
            fix(float("inf"))
            whole.append(time.monotonic() - begun)
            wanted = list(files.everything_in(target).values())
            remove(target)
        assert wanted != list(original.values())
        longest = 1.2 * min(whole)
        for _ in range(KILLS):
            fix(dice.uniform(0, longest))
            # The disk is faster or slower by the minute; so about every second repair ends.
            longest *= 0.9 if target.exists() else 1.1
            if target.exists():
                complete += 1
                assert list(files.everything_in(target).values()) == wanted
                remove(target)
            for left in tmp_path.glob(".*"):
                drafts += 1
                remove(left)
    assert files.everything_in(path) == original
    assert drafts > KILLS // 10, "few kills fell into the writing: the test has shown nothing"
    assert complete, "no repair came to its end"


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
