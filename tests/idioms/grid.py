"""`make idioms`: every program through every way in, as a table."""

from __future__ import annotations

import argparse
import collections
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests import forks
from tests.idioms.program import FAULTY_WAYS, WAYS, has_fault, paths, ways_of

FINE = ("ok", "right", "loop", "honest")
Cell = tuple[str, ...]  # name and way, and "fault" where it is put in


def verdict(*cell: str) -> str:
    """What the harness says of one program, run in a process of its own."""
    try:
        done = forks.python_module("tests.idioms.harness", *cell)
    except subprocess.TimeoutExpired:
        return "crash: does not end"
    if done.returncode:
        return f"crash: ended with {done.returncode}: {done.stderr[-2000:]}"
    print(done.stderr, file=sys.stderr, end="")
    return done.stdout.splitlines()[-1]


def cells(names: list[str]) -> list[Cell]:
    """All that there is to run of these programs."""
    chosen = [(name, path) for name, path in paths().items() if not names or name in names]
    healthy = [(name, way) for name, path in chosen for way in ways_of(path)]
    faulty = [
        (name, way, "fault")
        for name, path in chosen
        for way in ways_of(path)
        if has_fault(path) and way in FAULTY_WAYS
    ]
    return sorted([*healthy, *faulty])


def judged(cell: Cell) -> str:
    """The verdict on one cell of the grid."""
    said = verdict(*cell)
    print(f"{key(cell)}: {said}", file=sys.stderr)
    return said


def main() -> int:
    """Prints the table; returns 1 when it is not as `KNOWN` has it."""
    from tests.idioms.test_idioms import KNOWN  # not above: what is above, every process imports

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these programs")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    started, wanted = time.monotonic(), cells(options.names)
    with ThreadPoolExecutor(options.workers) as pool:
        verdicts = dict(zip(wanted, pool.map(judged, wanted), strict=True))
    print_table(verdicts)
    surprises = [c for c, said in verdicts.items() if (said in FINE) == (key(c) in KNOWN)]
    for cell, said in verdicts.items():
        if said not in FINE:
            print(
                f"{key(cell)}: {said}{'' if cell in surprises else f'  KNOWN: {KNOWN[key(cell)]}'}"
            )
    for cell in surprises:
        if verdicts[cell] in FINE:
            print(
                f"{key(cell)}: {verdicts[cell]}, although it is known to fail: {KNOWN[key(cell)]}"
            )
    print(
        f"{len(verdicts)} runs, {len(surprises)} not as known, {time.monotonic() - started:.0f} s"
    )
    return 1 if surprises else 0


def key(cell: Cell) -> str:
    """The cell's name in `KNOWN`."""
    return "/".join(cell)


def print_table(verdicts: dict[Cell, str]) -> None:
    """One line a program, one column a way in; then the counts."""
    columns = [*((way,) for way in WAYS), *((way, "fault") for way in FAULTY_WAYS)]
    print(f"{'':28}", *(f"{'/'.join(column):12}" for column in columns))
    for name in dict.fromkeys(cell[0] for cell in verdicts):
        words = (verdicts.get((name, *column), "-").partition(":")[0] for column in columns)
        print(f"{name:28}", *(f"{word:12}" for word in words))
    for length, title in ((2, "healthy"), (3, "with a fault")):
        found = [said.partition(":")[0] for cell, said in verdicts.items() if len(cell) == length]
        counts = ", ".join(f"{n} {word}" for word, n in collections.Counter(found).most_common())
        print(f"{title}: {counts}")


if __name__ == "__main__":
    sys.exit(main())
