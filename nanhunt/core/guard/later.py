"""`nanhunt.hunt_bundle`: hunts a step that failed in another process, from a guard's file."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanhunt.core.guard.bundle import FORMAT, PARTS, VERSION
from nanhunt.core.hunting.engine import HuntEngine
from nanhunt.core.program.target import Target, parameters_of
from nanhunt.core.snapshot.random_state import RandomState
from nanhunt.errors import CheckpointError, UsageError
from nanhunt.records.report import Report
from nanhunt.torch_private import tree_map_only


def hunt_bundle(
    path: str | Path,
    model: Any,
    step_fn: Callable[[Any], Any],
    **options: Any,
) -> Report:
    """Hunts the failing step that a guard has kept in a file.

    Puts parameters, buffers, modes, optimizer and scaler state and the random generators as they
    were at the start of that step, and runs it under watch. They stay so afterwards.

    Args:
        path: the bundle.
        model: a model built by the same code; its values do not matter.
        step_fn: one training step with the model and an optimizer of the same kind. It takes
            the batch as the loop got it, moved to the model's device; a list of them when the
            step had several. Where the guard has not seen the batch (a loop over something
            that is no DataLoader, without `guard.batches`) it takes the inputs of the model's
            first call: the tensor, a tuple of several, or a dict of keywords.
        **options: as in `Hunt`.

    Returns:
        The report; its findings have the number that the step had in the loop.

    Raises:
        CheckpointError: the file cannot be read, or is no bundle.
        UsageError: the model or its optimizers do not fit the bundle.
        OSError: the file cannot be opened.
    """
    content = load(path)
    target = Target(model)
    _put_tensors(target, content)
    device = next(iter(target.parameters.values())).device
    with HuntEngine(model, step_fn, data=[to_device(batch_of(content), device)], **options) as hunt:
        _put_optimizers(hunt, content)
        for scaler, state in zip(hunt._scalers, content["scalers"], strict=False):
            scaler.load_state_dict(state)
        RandomState.from_plain(content["random"]).restore()
        report = hunt.run(1)
    number = int(content["step"])
    findings = tuple(dataclasses.replace(f, step=number) for f in report.findings)
    notes = [f"step {number}, from the bundle {Path(path).name}"]
    if content["batches_known"] == "assumed" and content["batches"]:
        notes.append("the batch is the one handed out last; nothing tells that the model got it")
    notes += [f"not in the bundle: {place}" for place in content["left_out"]]
    return dataclasses.replace(report, findings=findings, notes=(*report.notes, *notes))


def load(path: str | Path) -> dict[str, Any]:
    """Reads a bundle, with `weights_only=True`.

    Raises:
        CheckpointError: the file cannot be read, or is no bundle of a known version.
        OSError: it cannot be opened.
    """
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        told = next(iter(str(error).splitlines()), "it is cut off")
        raise CheckpointError(f"{path} cannot be read: {told}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no bundle of a guard; `nanhunt doctor` reads checkpoints")
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is a bundle of version {content.get('version')!r}; this nanhunt reads "
            f"version {VERSION}"
        )
    lacking = [name for name in PARTS if name not in content]
    if lacking:
        raise CheckpointError(f"{path} is damaged: it has no {', '.join(lacking)}")
    return content


def batch_of(content: dict[str, Any]) -> Any:
    """What the step function is given."""
    batches = content["batches"]
    if batches:
        return batches[0] if len(batches) == 1 else batches
    if not content["inputs"]:
        return None
    args, kwargs = content["inputs"][0]
    if kwargs:
        return dict(kwargs) if not args else (args, kwargs)
    return args[0] if len(args) == 1 else args


def to_device(value: Any, device: torch.device) -> Any:
    """Moves the tensors in nested containers."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), value)


@torch.no_grad()
def _put_tensors(target: Target, content: dict[str, Any]) -> None:
    live: dict[str, dict[str, Tensor]] = {
        "parameters": dict(target.parameters),
        "buffers": dict(target.buffers()),
    }
    for what, tensors in live.items():
        kept = content[what]
        wrong = [*(tensors.keys() ^ kept.keys())] or [
            name for name in kept if tensors[name].shape != kept[name].shape
        ]
        if wrong:
            raise UsageError(
                f"the model does not fit the bundle: {what} {', '.join(sorted(wrong)[:4])}. Build "
                "it as in the run that failed."
            )
        for name, value in kept.items():
            tensors[name].copy_(value)
    for name, mode in content["training"].items():
        if name in target.named:
            target.named[name].training = mode


def _put_optimizers(hunt: HuntEngine, content: dict[str, Any]) -> None:
    names = {id(p): name for name, p in hunt._target.parameters.items()}
    live = {tuple(names.get(id(p), "") for p in parameters_of(o)): o for o in hunt._optimizers}
    for kept in content["optimizers"]:
        optimizer = live.get(tuple(kept["parameters"]))
        if optimizer is None:
            raise UsageError(
                f"no optimizer here holds the same {len(kept['parameters'])} parameters as the "
                f"{kept['kind']} in the bundle. Build it as in the run that failed."
            )
        optimizer.load_state_dict(kept["state"])
