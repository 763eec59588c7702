"""`make campaign`: many injections, and how many of them were placed exactly."""

from __future__ import annotations

import argparse
import collections
import sys
import time
from collections.abc import Iterator

import torch
import transformers

import nanhunt
from tests.campaign.architectures import NAMES
from tests.campaign.injections import Injection, draw


def injections(count: int, seed: int) -> Iterator[tuple[int, Injection]]:
    """Yields (seed, injection) for the first `count` seeds that reach something."""
    made = 0
    while made < count:
        injection = draw(seed, NAMES)
        if injection is not None:
            made += 1
            yield seed, injection
        seed += 1


def main() -> int:
    """Runs the campaign; returns 1 when a single place was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--injections", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    started, exact, named, missed, last = time.monotonic(), 0, 0, [], options.seed
    per_kind: collections.Counter[str] = collections.Counter()
    for seed, injection in injections(options.injections, options.seed):
        report = nanhunt.hunt(injection.model, injection.step, steps=5, progress=False)
        wrong = injection.misses(report.finding)
        exact += not wrong
        named += report.finding is not None and report.finding.cause != "not_established"
        per_kind[injection.kind] += 1
        last = seed
        if wrong:
            missed.append((seed, injection, wrong))
            print(f"missed seed {seed}: {injection.kind} in {injection.architecture}: {wrong}")
    total = sum(per_kind.values())
    drawn = last - options.seed + 1
    print(f"{exact} of {total} exact, over {len(NAMES)} architectures; {dict(per_kind)}")
    print(f"the cause was named in {named}, never a wrong one among those exact")
    print(f"{drawn - total} draws reached nothing and were drawn again")
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
