"""What watching costs: a bare step, a watched one, and the tools people use instead.

All variants run in one process, in a new random order in every round, each round one step of
each; the ratio to the bare step is taken within a round. Garbage is collected outside the
timing. Every variant has a model of its own, from the same bits.

    python benchmarks/overhead.py [--device cuda] [--rounds 40] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from models import MODELS, build

import nanhunt

WARM_UPS = 4


def bare(name: str, device: str) -> Callable[[], Any]:
    """The step as it is."""
    return build(name, device)[1]


def watched(name: str, device: str) -> Callable[[], Any]:
    """The step under a hunt; its first, observed step falls into the warm-up."""
    model, step, _ = build(name, device)
    return nanhunt.Hunt(model, step, progress=False).step


def measured(name: str, device: str) -> Callable[[], Any]:
    """The step under a hunt that counts every module's output and gradient into histograms."""
    model, step, _ = build(name, device)
    hunt = nanhunt.Hunt(model, step, progress=False)
    hunt.statistics = True
    return hunt.step


def guarded(name: str, device: str) -> Callable[[], Any]:
    """The step under a guard; it is attached for its own step alone, as a hunt is."""
    model, step, optimizer = build(name, device)
    guard = nanhunt.guard(model, optimizer, policy="skip_batch", bundle=None)

    def run() -> None:
        with guard.attached():
            step()

    return run


def anomaly(name: str, device: str) -> Callable[[], Any]:
    """`torch.autograd.detect_anomaly`."""
    step = build(name, device)[1]

    def run() -> None:
        with torch.autograd.set_detect_anomaly(True):
            step()

    return run


def underflow_overflow(name: str, device: str) -> Callable[[], Any]:
    """`DebugUnderflowOverflow` of transformers, which hooks every module."""
    from transformers.debug_utils import DebugUnderflowOverflow

    model, step, _ = build(name, device)
    debugger = DebugUnderflowOverflow(model)

    def run(_keep: Any = debugger) -> None:
        step()

    return run


def debug_mode(name: str, device: str) -> Callable[[], Any]:
    """PyTorch's `DebugMode`, which logs every operation."""
    from torch.utils._debug_mode import DebugMode

    step = build(name, device)[1]

    def run() -> None:
        with DebugMode():
            step()

    return run


VARIANTS = {
    "bare": bare,
    "nanhunt, watching": watched,
    "nanhunt, statistics on": measured,
    "nanhunt, guarding": guarded,
    "detect_anomaly": anomaly,
    "DebugUnderflowOverflow": underflow_overflow,
    "DebugMode": debug_mode,
}


def seconds(step: Callable[[], Any], device: str) -> float:
    """One step, with the device's queue empty before and after."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(name: str, device: str, rounds: int, dice: random.Random) -> dict[str, Any]:
    """Times every variant on one model."""
    steps = {variant: make(name, device) for variant, make in VARIANTS.items()}
    for step in steps.values():
        for _ in range(WARM_UPS):
            step()
    times: dict[str, list[float]] = {variant: [] for variant in steps}
    gc.disable()
    for _ in range(rounds):
        order = list(steps)
        dice.shuffle(order)
        for variant in order:
            gc.collect()
            times[variant].append(seconds(steps[variant], device))
    gc.enable()
    results = {}
    for variant, taken in times.items():
        ratios = [one / base for one, base in zip(taken, times["bare"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        results[variant] = {
            "milliseconds": statistics.median(taken) * 1e3,
            "ratio": statistics.median(ratios),
            "ratio_quartiles": [low, high],
        }
    return results


def catch(name: str, device: str) -> dict[str, float]:
    """A failing run: what the observed first step and the way to the culprit cost."""
    step = bare(name, device)
    step()
    base = statistics.median(seconds(step, device) for _ in range(5))
    model, failing, _ = build(name, device, fails=True)
    costs = nanhunt.hunt(model, failing, steps=6, progress=False).costs
    return {
        "first_step": costs["observed_step_seconds"] / base,
        "catch_to_finding": costs["examination_seconds"] / base,
    }


def main() -> None:
    """Prints the table and, if asked, writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    document: dict[str, Any] = {"torch": torch.__version__, "device": options.device}
    print(f"torch {torch.__version__}, {options.device}, {options.rounds} rounds")
    print(f"{'':12} {'variant':24} {'ms':>8} {'ratio':>7}  quartiles")
    for name in MODELS:
        with contextlib.redirect_stderr(None):
            results = compare(name, options.device, options.rounds, dice)
        document[name] = {"variants": results, "failing": catch(name, options.device)}
        for variant, result in results.items():
            low, high = result["ratio_quartiles"]
            print(
                f"{name:12} {variant:24} {result['milliseconds']:8.1f} {result['ratio']:7.3f}"
                f"  {low:.3f} to {high:.3f}"
            )
        told = document[name]["failing"]
        print(
            f"{name:12} in bare steps: the observed first step {told['first_step']:.1f}, "
            f"from the catch to the finding {told['catch_to_finding']:.1f}"
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
