"""Notebooks that hold reports in their outputs, as they lie on disk when no kernel runs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import nbformat

from nanhunt.records.histogram import Bin, Histogram
from nanhunt.records.report import Finding, Frame, Report, Source, TensorStats, Trial

STEP = """def step_fn():
    optimizer.zero_grad()
    loss = (model(x) * 0).log().mean()
    loss.backward()
    optimizer.step()"""
LINE = Source("/tmp/ipykernel_7/1.py", 3, STEP.splitlines()[2].strip(), "step_fn", cell=2)


def bell(middle: int, numel: int = 2048) -> Histogram:
    """A histogram around a power of two, somewhat lopsided."""
    heights = {k: int(numel / 4 * math.exp(-(k * k) / 8)) for k in range(-7, 8)}
    bins = tuple(Bin(middle + k, height // 2, height) for k, height in heights.items() if height)
    return Histogram("float16", numel, bins, zeros=3, binned=numel)


def stats(name: str, **more: Any) -> TensorStats:
    """Statistics of a half-precision tensor."""
    return TensorStats(name, (8, 4, 64), "float16", "cpu", 2048, **more)


CLEAN = stats("self", absmin=6.1e-5, absmax=311.0, mean=0.4, headroom=7.7)
NEAR = stats("other", absmin=0.02, absmax=41000.0, mean=12.0, headroom=0.7)
BAD = stats("output", nan=12, neginf=3, absmin=0.1, absmax=11.0, mean=2.0, headroom=12.5)


def binned(entry: TensorStats, middle: int) -> TensorStats:
    """The statistics with a histogram, as what the culprit saw has one."""
    return dataclasses.replace(entry, histogram=bell(middle))


def frames(count: int = 6) -> tuple[Frame, ...]:
    """Module calls on the way to the culprit, each with its own health."""
    names = ("encoder.layers.{}.attn", "encoder.layers.{}.norm", "encoder.layers.{}.mlp.0")
    made = [
        Frame(names[n % 3].format(n // 3), 1, ("Attention", "LayerNorm", "Linear")[n % 3], CLEAN)
        for n in range(count - 2)
    ]
    made.append(Frame("decoder.norm", 1, "LayerNorm", NEAR))
    made.append(Frame("decoder.head", "recompute", "Linear", BAD))
    return tuple(made)


def culprit(**changes: Any) -> Finding:
    """A finding in line 3 of cell 2."""
    fields: dict[str, Any] = {
        "severity": "critical",
        "kind": "inf",
        "phase": "forward",
        "step": 40,
        "module": "decoder.head",
        "call": 1,
        "op": "aten.log.default",
        "source": LINE,
        "stack": (Source("/tmp/ipykernel_7/2.py", 1, "step_fn()", "<module>", 3), LINE),
        "inputs": (binned(CLEAN, 2), binned(NEAR, 8)),
        "outputs": (binned(BAD, 0),),
        "cause": "log_of_zero",
        "explanation": "The logarithm of 0 is -Inf: 3 of 2,048 elements of its input were 0.",
        "evidence": ("ruled out: not an overflow: the inputs are finite", "float64 gives the same"),
        "reaches": ("loss", "gradient encoder.layers.0.attn.weight"),
        "frames": frames(),
        "trials": (
            Trial("clamp the input at 1e-6", True, 0.51, 1e-3, 0,
                  "    loss = (model(x) * 0).clamp(min=1e-6).log().mean()", "held",
                  LINE.file, (3, 3)),
            Trial("run decoder.head in float32", False, float("nan"), None, 2),
        ),
    }  # fmt: skip
    return Finding(**{**fields, **changes})


def report(*findings: Finding, **changes: Any) -> Report:
    """A report of these findings, of `culprit` alone when none is given."""
    fields: dict[str, Any] = {
        "steps_run": 41,
        "findings": findings or (culprit(),),
        "replay": "bit_exact",
        "title": "Tagger, 1,700 parameters in 6 tensors",
        "environment": {"torch": "2.13.0", "devices": "cpu"},
        "costs": {"watched_step_seconds": 0.0021, "examination_seconds": 0.209},
    }
    return Report(**{**fields, **changes})


def write(path: Path, data: Any, *cells: str) -> None:
    """Writes a notebook whose last cell has put out a report.

    Args:
        path: the notebook.
        data: a report, or what stands in its place.
        cells: sources of the cells before; by default one to set up, and the step.
    """
    sources = cells or ("import torch", STEP, "%nanhunt model step_fn")
    bundle = data._repr_mimebundle_() if isinstance(data, Report) else {Report.MIME_TYPE: data}
    bundle.setdefault("text/plain", "a report")
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell(source, execution_count=number)
        for number, source in enumerate(sources, start=1)
    ]
    notebook.cells[-1].outputs = [
        nbformat.v4.new_output("execute_result", bundle, execution_count=len(sources))
    ]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)


def append(path: Path, source: str, shown: Any) -> None:
    """Adds a cell that has put out something that Jupyter can show."""
    notebook = nbformat.read(path, as_version=4)
    count = len(notebook.cells) + 1
    cell = nbformat.v4.new_code_cell(source, execution_count=count)
    bundle = shown._repr_mimebundle_()
    cell.outputs = [nbformat.v4.new_output("execute_result", bundle, execution_count=count)]
    notebook.cells.append(cell)
    nbformat.write(notebook, path)
