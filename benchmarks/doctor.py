"""How fast the doctor reads a large checkpoint, beside `cat` to nowhere, and in how much memory.

Every round times `cat FILE > /dev/null` and `nanhunt.doctor(FILE)`, in random order, each in a
process of its own; the doctor's time is that of the call, without the import of torch. With
`--cold` the file is dropped from the page cache before each. Memory is the peak of the
process beyond what it had after the import.

    python benchmarks/doctor.py [--gigabytes 4] [--rounds 5] [--cold] [--folder DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

LARGEST = 1 << 28  # bytes of the largest tensor: 256 MiB
PIECE = 1 << 24

# Run in a process of its own: seconds, and megabytes beyond those after the import.
EXAMINE = """
import json, sys, time
from nanhunt.checkpoints.doctor import doctor
def peak():  # VmHWM, in kB; ru_maxrss would begin with that of the parent
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before = peak()
started = time.perf_counter()
found = doctor(sys.argv[1])
seconds = time.perf_counter() - started
assert found.healthy, str(found)
print(json.dumps({"seconds": seconds, "megabytes": (peak() - before) / 1024}))
"""


def write_safetensors(path: Path, nbytes: int) -> None:
    """Writes a file of float32 tensors, piece by piece."""
    header, place = {}, 0
    while place < nbytes:
        size = min(LARGEST, nbytes - place)
        name = f"layers.{len(header)}.weight"
        shape = [size // 4096, 1024]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    piece = _noise(PIECE)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for _ in range(0, nbytes, PIECE):
            stream.write(piece)
        os.fsync(stream.fileno())


def write_torch(path: Path, nbytes: int) -> None:
    """Writes the same with `torch.save`, with one tensor's memory for all of them."""
    tensor = torch.frombuffer(bytearray(_noise(PIECE) * (LARGEST // PIECE)), dtype=torch.float32)
    # Clones, so that each is stored: pages of one file mapped privately cost memory only once.
    state = {f"layers.{n}.weight": tensor.clone().view(-1, 1024) for n in range(nbytes // LARGEST)}
    torch.save(state, path)


def _noise(nbytes: int) -> bytes:
    values = torch.randn(nbytes // 4, generator=torch.Generator().manual_seed(0)) * 0.02
    return values.numpy().tobytes()


def drop_from_cache(path: Path) -> None:
    """Asks the system to forget the file's pages."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cat(path: Path) -> dict[str, float]:
    """Reads the file through to nowhere."""
    started = time.perf_counter()
    with open(os.devnull, "wb") as nowhere:
        subprocess.run(["cat", str(path)], stdout=nowhere, check=True)
    return {"seconds": time.perf_counter() - started}


def examine(path: Path) -> dict[str, float]:
    """Lets the doctor read it in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", EXAMINE, str(path)], check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))


def measure(path: Path, rounds: int, cold: bool, dice: random.Random) -> dict[str, Any]:
    """Both, in random order in every round."""
    taken: dict[str, list[dict[str, float]]] = {"cat": [], "doctor": []}
    readers = [("cat", cat), ("doctor", examine)]
    if not cold:
        cat(path)
    for _ in range(rounds):
        dice.shuffle(readers)
        for name, reader in readers:
            if cold:
                drop_from_cache(path)
            taken[name].append(reader(path))
    size = path.stat().st_size
    seconds = {name: [one["seconds"] for one in runs] for name, runs in taken.items()}
    ratios = [c / d for c, d in zip(seconds["cat"], seconds["doctor"], strict=True)]
    return {
        "gigabytes": size / 1e9,
        "cat_gigabytes_per_second": size / statistics.median(seconds["cat"]) / 1e9,
        "doctor_gigabytes_per_second": size / statistics.median(seconds["doctor"]) / 1e9,
        "speed_ratio": statistics.median(ratios),
        "speed_ratios": sorted(ratios),
        "megabytes": max(run["megabytes"] for run in taken["doctor"]),
    }


def main() -> None:
    """Prints a line per format and, if asked, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the files are written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    nbytes = int(options.gigabytes * (1 << 30)) // LARGEST * LARGEST or LARGEST
    dice = random.Random(options.seed)
    document: dict[str, Any] = {"torch": torch.__version__, "cold": options.cold}
    print(f"{'':14} {'GB':>5} {'cat GB/s':>9} {'doctor GB/s':>12} {'ratio':>6} {'MB beyond':>10}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name, write in (("x.safetensors", write_safetensors), ("x.pth", write_torch)):
            path = Path(folder) / name
            write(path, nbytes)
            result = document[name] = measure(path, options.rounds, options.cold, dice)
            path.unlink()
            print(
                f"{name:14} {result['gigabytes']:5.2f} {result['cat_gigabytes_per_second']:9.2f} "
                f"{result['doctor_gigabytes_per_second']:12.2f} {result['speed_ratio']:6.2f} "
                f"{result['megabytes']:10.0f}"
            )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
