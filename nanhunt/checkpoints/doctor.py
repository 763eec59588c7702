"""`nanhunt.doctor`: says what is wrong with a checkpoint, and repairs what can be repaired."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nanhunt.checkpoints.formats import opening
from nanhunt.checkpoints.formats.contents import Entry
from nanhunt.checkpoints.judge import against_model as fitting
from nanhunt.checkpoints.judge.examine import ExaminedCheckpoint, examine_contents
from nanhunt.checkpoints.judge.roles import STATISTICS, leaf
from nanhunt.checkpoints.judge.scan import read_values
from nanhunt.checkpoints.repair.plan import plan
from nanhunt.checkpoints.repair.recalibrate import recalibrate
from nanhunt.checkpoints.repair.writing import target_of, write
from nanhunt.checkpoints.series import bisect
from nanhunt.errors import CheckpointError, UsageError
from nanhunt.records.diagnosis import Diagnosis, Match, Repair


def doctor(
    path: str | Path,
    model: nn.Module | None = None,
    *,
    fix: bool = False,
    fix_weights: bool = False,
    data: Iterable[Any] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
) -> Diagnosis:
    """Examines a checkpoint, and repairs what can be repaired into a new file.

    Reads files of `torch.save` (with `weights_only=True` alone), safetensors, sharded folders
    with an index, folders of torch.distributed, and Lightning's `.ckpt`; nothing in them is
    executed. A folder of checkpoints that differ in numbers alone is searched for the first
    bad one. Memory is bounded by the largest tensor; the file itself is never written to.

    Args:
        path: a file, a folder that is one checkpoint, or a folder of checkpoints.
        model: the model that is to take it, or something whose attribute `model` is one: the
            keys, shapes and dtypes are compared too, and its buffers are known as such.
        fix: write `NAME_FIXED.ext` beside it: bad channels of running statistics reset, bad
            elements of optimizer state reset, the scale of a GradScaler reset. Everything else
            keeps its bits.
        fix_weights: with `fix`, also set elements of weights that are not finite to 0.
        data: with `fix` and `model`, batches to compute the statistics of poisoned BatchNorm
            layers from (see `recalibrate`) instead of resetting them.
        forward: with `data`, called with a copy of the model and a batch.

    Returns:
        The diagnosis; `healthy` says whether anything is critical.

    Raises:
        CheckpointError: it is damaged or of no known format.
        CodeNeededError: it would need code to be run.
        UsageError: the arguments do not go together, or the repaired file exists already.
        OSError: a file cannot be opened or written.
    """
    started = time.monotonic()
    path = Path(path).expanduser()
    if path.name in ("", ".."):  # as "." and "..", which have no name that a copy could be given
        path = path.resolve()
    if (fix_weights or data is not None) and not fix:
        raise UsageError("fix_weights and data belong to a repair: give fix=True too")
    if data is not None and model is None:
        raise UsageError("computing statistics from data needs the model")
    module = None if model is None else fitting.as_module(model)
    if path.is_dir() and not opening.is_checkpoint_folder(path):
        diagnosis = _series(path, module, fix)
    else:
        if fix:
            target_of(path)  # before everything is read, not after
        examination, fitted = _examine(path, module)
        diagnosis = examination.diagnosis()
        if fitted is not None:
            diagnosis = dataclasses.replace(diagnosis, match=fitted.match)
        if fix:
            statistics = _from_data(examination, fitted, module, data, forward)
            repair = write(examination, plan(examination, fix_weights, statistics))
            diagnosis = dataclasses.replace(diagnosis, repair=_honest(repair, diagnosis.match))
    return dataclasses.replace(diagnosis, seconds=time.monotonic() - started)


def _examine(
    path: Path, model: nn.Module | None
) -> tuple[ExaminedCheckpoint, fitting.Fitting | None]:
    contents = opening.read(path)
    if model is None:
        return examine_contents(contents), None
    fitted = fitting.fit(contents, model)
    buffers, parameters = fitting.kinds_of(fitted, model)
    return examine_contents(contents, buffers, parameters), fitted


def _series(folder: Path, model: nn.Module | None, fix: bool) -> Diagnosis:
    series = opening.series_in(folder)
    if not series:
        raise CheckpointError(
            f"{folder}: no checkpoint in this folder; known are {', '.join(opening.SUFFIXES)}, an "
            "index of shards, and folders of torch.distributed"
        )
    if fix:
        raise UsageError(f"{folder} is a series of checkpoints: name the one to repair")
    fitted: dict[Path, Match] = {}

    def look(path: Path) -> ExaminedCheckpoint:
        examination, fits = _examine(path, model)
        if fits is not None:
            fitted[path] = fits.match
        return examination

    timeline, shown = bisect(series, look)
    if shown is None:
        return Diagnosis(str(folder), "series of checkpoints", timeline=timeline)
    others = [p.name for p in opening.checkpoint_files(folder) if p not in series]
    notes = [f"not part of the series: {', '.join(others[:8])}"] if others else []
    diagnosis = shown.diagnosis()
    return dataclasses.replace(
        diagnosis,
        timeline=timeline,
        match=fitted.get(shown.contents.path),
        notes=(*diagnosis.notes, *notes),
    )


def _read(entry: Entry) -> Tensor:
    if entry.tensor is not None:
        return entry.tensor.to_dense()
    values = read_values(entry)
    if entry.dtype is not None and entry.dtype.is_complex:
        values = torch.view_as_complex(values.contiguous())
    if values.numel() < entry.numel:  # expanded: its elements share memory
        return values.as_strided(entry.shape, entry.stride)
    return values.reshape(entry.shape)


def _honest(repair: Repair, match: Match | None) -> Repair:
    """A file that does not fit the model is not mended by mending its values."""
    if match is None or match.fits:
        return repair
    return dataclasses.replace(repair, left=(*repair.left, f"does not fit {match.model}"))


def _from_data(
    examination: ExaminedCheckpoint,
    fitted: fitting.Fitting | None,
    model: nn.Module | None,
    data: Iterable[Any] | None,
    forward: Callable[[nn.Module, Any], Any] | None,
) -> dict[str, Tensor]:
    """New statistics for every layer one of whose statistics is bad, by key in the file."""
    if data is None or fitted is None or model is None:
        return {}
    sick = {
        problem.key.rpartition(".")[0]
        for problem in examination.problems
        if leaf(problem.key) in STATISTICS and problem.severity == "critical"
    }
    if not sick:
        return {}
    healthy = copy.deepcopy(model)
    state = {k: v for k, v in healthy.state_dict().items() if isinstance(v, Tensor)}
    loaded: set[tuple[int, torch.Size]] = set()  # tied ones have several names
    with torch.no_grad():
        for name, entry in fitted.entries.items():
            if name in state and state[name].shape == entry.shape and not entry.note:
                state[name].copy_(_read(entry))
                loaded.add((state[name].data_ptr(), state[name].shape))
    lacking = [name for name, v in state.items() if (v.data_ptr(), v.shape) not in loaded]
    if lacking:
        raise UsageError(
            f"statistics cannot be computed: {len(lacking):,} of the model's tensors are not in "
            "the file with the same shape"
        )
    recalibrate(healthy, data, forward=forward)
    return {
        entry.key: state[name]
        for name, entry in fitted.entries.items()
        if name in state and entry.key.rpartition(".")[0] in sick and leaf(entry.key) in STATISTICS
    }
