"""A failing step as one file: enough to hunt it in another process, on another day.

The file is written by `torch.save` and holds tensors and plain data alone, so that
`torch.load(path, weights_only=True)` reads it. It is checked by reading it back before it
gets its name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.guard.plain import plain
from nanhunt.core.program.files import name_once
from nanhunt.core.program.target import Target, parameters_of
from nanhunt.core.snapshot.random_state import RandomState
from nanhunt.core.tensors.stats import plain_tensors, same_bits

FORMAT, VERSION = "nanhunt.bundle", 1
SUFFIX = ".nanhunt.pt"
# What hunting a bundle needs of it.
PARTS = (
    *("step", "parameters", "buffers", "training", "optimizers", "scalers"),
    *("batches", "batches_known", "inputs", "random", "left_out"),
)
NOT_WRITTEN = (OSError, RuntimeError, MemoryError, pickle.PickleError)  # what `write` may raise


@dataclasses.dataclass(frozen=True)
class Given:
    """What a loop has been given in a step.

    Attributes:
        batches: batches of this step.
        before: those of the step before, which a loader may have fetched ahead for this one.
        told: whether the batches are those of this step for certain.
        calls: positional and keyword inputs of the model's calls.
    """

    batches: list[Any]
    before: list[Any]
    told: bool
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]


def content_of(
    target: Target,
    optimizers: Sequence[Optimizer],
    scalers: Sequence[GradScaler],
    given: Given,
    step: int,
    bad: Sequence[str],
    random: RandomState | None = None,
) -> dict[str, Any]:
    """The present state and the batch of the step at hand, as tensors and plain data.

    Args:
        target, optimizers, scalers: whose state to keep.
        given: the batch.
        step: number of the step.
        bad: names of what was not finite.
        random: the random generators after the batch was made; as they are now if None.
    """
    left_out: list[str] = []
    batches, known = _batches(given)
    names = {id(parameter): name for name, parameter in target.parameters.items()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "torch": str(torch.__version__),
        "step": step,
        "bad": list(bad),
        "parameters": plain(target.parameters, left_out, where="parameters"),
        "buffers": plain(dict(target.buffers()), left_out, where="buffers"),
        "training": {name: module.training for name, module in target.named.items()},
        "optimizers": [
            {
                "kind": type(optimizer).__name__,
                "parameters": [names.get(id(p), "") for p in parameters_of(optimizer)],
                "state": plain(optimizer.state_dict(), left_out, where="optimizer"),
            }
            for optimizer in optimizers
        ],
        "scalers": [plain(scaler.state_dict(), left_out, where="scaler") for scaler in scalers],
        "batches": plain(batches, left_out, where="batches"),
        "batches_known": known,
        "inputs": plain(given.calls, left_out, where="inputs"),
        "random": (random or RandomState.now()).plain(),
        "left_out": left_out,
    }


def _batches(given: Given) -> tuple[list[Any], str]:
    """The step's batches, and how they are known.

    A loader's wrapper may fetch ahead: then the batch that was handed out last is not the one
    that the model got. So those are taken that have most tensors in common with the model's
    inputs, and where there are none, those that were handed out in this step.

    Returns:
        The batches, and `"told"`, `"matched"` or `"assumed"`.
    """
    if given.told:
        return given.batches, "told"
    inputs = [tensor for call in given.calls for tensor in _large(call)]
    candidates = [*given.before, *given.batches]
    shared = [sum(_is_among(tensor, inputs) for tensor in _large(b)) for b in candidates]
    most = max(shared, default=0)  # constant labels are alike in all batches
    if not most:
        return given.batches, "assumed"
    used = [b for b, number in zip(candidates, shared, strict=True) if number == most]
    return used, "matched"


def _large(value: Any) -> list[Tensor]:
    return [tensor for tensor in plain_tensors(value) if tensor.numel() > 1]


def _is_among(tensor: Tensor, others: list[Tensor]) -> bool:
    return any(_equal(tensor, other) for other in others)


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return same_bits(one.detach().cpu(), other.detach().cpu())


def write(folder: Path, content: dict[str, Any]) -> Path:
    """Writes a bundle under a name that nothing has yet; it is whole or not there.

    Raises:
        OSError: it cannot be written.
        RuntimeError: it cannot be read back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        torch.load(temporary, weights_only=True, map_location="cpu", mmap=True)
        return _named(Path(temporary), folder, content["step"])
    finally:  # whatever has ended it, also Ctrl-C: no file is left half-written
        Path(temporary).unlink(missing_ok=True)


def _named(draft: Path, folder: Path, step: int) -> Path:
    """Gives the file the first free name; the ranks of a run look for theirs at the same time."""
    for number in itertools.count(1):
        path = folder / f"step_{step:06}{f'_{number}' if number > 1 else ''}{SUFFIX}"
        with contextlib.suppress(FileExistsError):
            name_once(draft, path)
            break
    return path
