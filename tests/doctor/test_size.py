"""Large files: every byte is read once, in little memory. benchmarks/doctor.py has 4 GB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nanhunt
from tests.doctor import files

TENSOR = 64 * 2**20  # bytes
TENSORS = 9
EXAMINE = """
import json, sys
from nanhunt.checkpoints.doctor import doctor
def peak():  # megabytes
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
def read():  # bytes that this process has asked the system for
    return int(open("/proc/self/io").read().split("rchar:")[1].split()[0])
memory, bytes_read = peak(), read()
found = doctor(sys.argv[1], fix="--fix" in sys.argv)
numbers = {"megabytes": peak() - memory, "read": read() - bytes_read, "nbytes": found.nbytes}
print(json.dumps({**numbers, "problems": [problem.kind for problem in found.problems]}))
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def examine(path: Path, *options: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", EXAMINE, str(path), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(nanhunt.__file__).parent.parent)},
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def large(path: Path) -> Path:
    """Nine tensors of 64 MB; one of them a second moment with one bad element."""
    if path.suffix == ".pth":
        values = torch.zeros(TENSORS, TENSOR // 4)
        state = {f"w{n}": values[n].clone() for n in range(1, TENSORS)}
        values[0, 7] = float("nan")
        return files.torch_file(path, {**state, "0.exp_avg_sq": values[0].clone()})
    header = {
        "0.exp_avg_sq" if n == 0 else f"w{n}": {
            "dtype": "F32",
            "shape": [TENSOR // 4],
            "data_offsets": [n * TENSOR, (n + 1) * TENSOR],
        }
        for n in range(TENSORS)
    }
    with path.open("wb") as stream:
        start = stream.write(files.header_bytes(header))
        stream.truncate(start + TENSORS * TENSOR)  # zeros, without writing them
        stream.seek(start + 7 * 4)
        stream.write(files.raw_bytes(torch.tensor([float("nan")])))
    return path


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_every_byte_is_read_once_in_a_few_megabytes(name: str, tmp_path: Path) -> None:
    path = large(tmp_path / name)
    found = examine(path)
    assert found["problems"] == ["not_finite"]
    assert found["nbytes"] == TENSORS * TENSOR
    assert found["megabytes"] < 100
    assert found["read"] < 1.02 * path.stat().st_size


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_a_repair_needs_memory_for_a_few_of_the_largest_tensors(name: str, tmp_path: Path) -> None:
    assert examine(large(tmp_path / name), "--fix")["megabytes"] < 6 * TENSOR / 2**20 + 100
    (fixed,) = tmp_path.glob("*_FIXED*")
    assert nanhunt.doctor(fixed).problems == ()
