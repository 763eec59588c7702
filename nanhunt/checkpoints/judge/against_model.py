"""Compares a checkpoint with a model: what `load_state_dict` will say, and why."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nanhunt.checkpoints.formats.contents import Contents, Entry, Keys
from nanhunt.checkpoints.judge.roles import without_shard
from nanhunt.core.tensors.dtypes import dtype_name
from nanhunt.errors import UsageError
from nanhunt.records.diagnosis import Match, Mismatch

# Who puts them before every name: DataParallel and DDP, torch.compile, Lightning modules.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "_forward_module.")
_NAMES_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Fitting:
    """How the keys of a checkpoint become those of a model.

    Attributes:
        under: where the state dict stands in the file.
        prefix: what is taken off its names.
        entries: tensors of the state dict by the model's names.
        match: what is told about it.
    """

    under: Keys
    prefix: str
    entries: dict[str, Entry]
    match: Match


def load_model(spec: str) -> nn.Module:
    """Runs the user's own `FILE.py:FUNCTION` and returns the model it builds.

    Raises:
        UsageError: there is no such file or function, or it gives no module.
    """
    path, _, name = spec.rpartition(":")
    file = Path(path)
    if not path or not name or not file.is_file():
        raise UsageError(f"{spec}: write it as FILE.py:FUNCTION, e.g. model.py:build")
    # Under a name that hides no other module; dataclasses look their own module up by name.
    own = f"_nanhunt_against_{file.stem}"
    module_spec = importlib.util.spec_from_file_location(own, file.resolve())
    if module_spec is None or module_spec.loader is None:
        raise UsageError(f"{spec}: {file.name} is no Python file; write it as FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(module_spec)
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[own] = module
    try:
        module_spec.loader.exec_module(module)
        build = getattr(module, name, None)
        if build is None:
            raise UsageError(f"{spec}: {file.name} has no {name}")
        return as_module(build() if callable(build) and not isinstance(build, nn.Module) else build)
    finally:
        if folder in sys.path:  # the file may have taken it away itself
            sys.path.remove(folder)


def as_module(value: Any) -> nn.Module:
    """A module, or the `model` of what holds one.

    Raises:
        UsageError: there is none.
    """
    model = value if isinstance(value, nn.Module) else getattr(value, "model", None)
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"a model is needed, and this is a {type(value).__name__}; give an nn.Module, or "
            "something whose attribute `model` is one"
        )
    return model


def fit(contents: Contents, model: nn.Module) -> Fitting:
    """Lays a checkpoint beside a model.

    Takes that state dict in the file, and that prefix, with which most names agree.
    """
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    under, prefix, entries = _best(contents, state)
    mismatches = [*_prefixes(under, prefix, entries, state), *_tied(model, entries, state)]
    tied = {key for m in mismatches if m.kind == "tied" for key in m.keys}
    missing = [name for name in state if name not in entries and name not in tied]
    unexpected = [name for name in entries if name not in state]
    mismatches += _listed("missing", missing, "the model has {n} the file lacks")
    mismatches += _listed("unexpected", unexpected, "the file has {n} the model lacks")
    mismatches += _shapes_and_dtypes(entries, state)
    order = {"critical": 0, "warning": 1, "info": 2}
    mismatches.sort(key=lambda mismatch: order[mismatch.severity])
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    found = sum(n in entries and _shape(entries[n]) == tuple(state[n].shape) for n in state)
    match = Match(
        type(model).__name__,
        ".".join(under),
        tuple(mismatches),
        len(state),
        found,
        sum(parameter.numel() for parameter in model.parameters()),
        _elements([entry for name, entry in entries.items() if name not in buffers]),
    )
    return Fitting(under, prefix, entries, match)


def kinds_of(fitting: Fitting, model: nn.Module) -> tuple[set[str], set[str]]:
    """Keys in the file of what the model calls buffers, and of its parameters."""
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    entries = fitting.entries.items()
    return (
        {entry.key for name, entry in entries if name in buffers},
        {entry.key for name, entry in entries if name in parameters},
    )


def _best(contents: Contents, state: dict[str, Tensor]) -> tuple[Keys, str, dict[str, Entry]]:
    """The place and prefix with most names in common; the shortest of equals."""
    places: dict[Keys, dict[str, Entry]] = {}
    for entry in contents.entries:
        for cut in range(len(entry.keys)):
            name = without_shard(".".join(entry.keys[cut:]))
            places.setdefault(entry.keys[:cut], {})[name] = entry
    best: tuple[int, int, Keys, str] = (-1, 0, (), "")
    for under, entries in places.items():
        for prefix in _possible_prefixes(entries, state):
            common = sum(
                name.startswith(prefix) and name[len(prefix) :] in state for name in entries
            )
            rank = (common, -len(under) - len(prefix), under, prefix)
            best = max(best, rank, key=lambda r: r[:2])
    _, _, under, prefix = best
    entries = places.get(under, {})
    return under, prefix, {name.removeprefix(prefix): entry for name, entry in entries.items()}


def _possible_prefixes(entries: dict[str, Entry], state: dict[str, Tensor]) -> list[str]:
    """None, the usual ones, and whatever stands before a name of the model in all of the file."""
    prefixes = ["", *PREFIXES, *(one + other for one in PREFIXES for other in PREFIXES)]
    first = next(iter(state), "")
    prefixes += [n[: -len(first)] for n in entries if first and n.endswith("." + first)]
    return [p for p in dict.fromkeys(prefixes) if not p or any(n.startswith(p) for n in entries)]


def _elements(entries: list[Entry]) -> int:
    """Number of elements, shared ones once."""
    unique = {entry.span or entry.keys: math.prod(_shape(entry)) for entry in entries}
    return sum(unique.values())


def _shape(entry: Entry) -> tuple[int, ...]:
    """The shape of the tensor, also where this is only a shard of it."""
    return entry.shape if entry.whole is None else entry.whole


def _prefixes(
    under: Keys, prefix: str, entries: dict[str, Entry], state: dict[str, Tensor]
) -> Iterator[Mismatch]:
    get = "".join(f"[{key!r}]" for key in under)
    if prefix:
        yield Mismatch(
            "prefix",
            "critical",
            f"the file's names begin with {prefix!r}",
            fix=f"state = {{k.removeprefix({prefix!r}): v for k, v in saved{get}.items()}}",
        )
        return
    if any(name in state for name in entries):
        return
    for wrapped in PREFIXES:
        if entries and any(wrapped + name in state for name in entries):
            yield Mismatch(
                "prefix",
                "critical",
                f"the model's names begin with {wrapped!r}, the file's do not",
                fix=f"state = {{{wrapped!r} + k: v for k, v in saved{get}.items()}}",
            )


def _tied(
    model: nn.Module, entries: dict[str, Entry], state: dict[str, Tensor]
) -> Iterator[Mismatch]:
    """Names of one and the same parameter: a file needs only one of them, loading wants all."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    for names in groups.values():
        there = [name for name in names if name in entries]
        absent = [name for name in names if name not in entries and name in state]
        if there and absent:
            share = "shares its" if len(absent) == 1 else "share their"
            yield Mismatch(
                "tied",
                "warning",
                f"{', '.join(absent)} {share} values with {there[0]}, under which name alone "
                "the file holds them",
                tuple(absent),
                f"{' = '.join(f'state[{name!r}]' for name in [*absent, there[0]])}",
            )
        spans = {entries[name].span for name in there}
        if len(there) > 1 and len(spans) > 1:
            text = f"{', '.join(there)} are one parameter in the model and stored apart in the file"
            yield Mismatch("tied", "info", text)


def _listed(kind: str, names: list[str], sentence: str) -> list[Mismatch]:
    if not names:
        return []
    text = sentence.format(n=f"{len(names):,} key{'s' if len(names) > 1 else ''}")
    return [Mismatch(kind, "critical", text, tuple(names[:_NAMES_SHOWN]))]


def _shapes_and_dtypes(entries: dict[str, Entry], state: dict[str, Tensor]) -> Iterator[Mismatch]:
    kinds: dict[tuple[str, str], list[str]] = {}
    for name, value in state.items():
        entry = entries.get(name)
        if entry is None:
            continue
        if _shape(entry) != tuple(value.shape):
            text = (
                f"{name} is {list(_shape(entry))} in the file and {list(value.shape)} in the model"
            )
            yield Mismatch("shape", "critical", text, (name,))
        if entry.dtype is not None and entry.dtype != value.dtype:
            kind = (dtype_name(entry.dtype), dtype_name(value.dtype))
            kinds.setdefault(kind, []).append(name)
    for (stored, wanted), names in kinds.items():
        text = f"{len(names):,} tensors are {stored} in the file and {wanted} in the model"
        lossy = "float16" in stored and "float32" in wanted
        told = f"{text}: loading widens them, what was rounded off stays lost" if lossy else text
        yield Mismatch("dtype", "warning", told, tuple(names[:_NAMES_SHOWN]))
