"""`nanhunt.compare`: a step beside its stable baseline; where dtype and values first differ."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nanhunt.core.compare.recording import Recorded, RecordedStep, forget_noise
from nanhunt.core.tensors.dtypes import HALVES, WIDE, dtype_name, real_part
from nanhunt.core.tensors.stats import is_lazy
from nanhunt.errors import UsageError
from nanhunt.records.comparison import Comparison, Pair

NOISY_RUNS = 3
MARGIN = 4.0  # the spread of a few noisy runs, times this, is taken for what rounding explains
_EPSILON = {  # one unit in the last place, relative
    dtype_name(dtype): torch.finfo(real_part(dtype)).eps
    for dtype in (*HALVES, *WIDE, torch.complex64, torch.complex128)
}
Rename = Mapping[str, str] | Callable[[str], str] | None
Match = tuple[int | None, int | None]


def compare(
    baseline: tuple[Any, Callable[[], Any]],
    modified: tuple[Any, Callable[[], Any]],
    *,
    rename: Rename = None,
) -> Comparison:
    """Runs one step of each program on the same inputs and weights and finds where they part.

    Both are put back afterwards, to the bit. Parameters and buffers of the same name (and
    shape) get the baseline's values for the time of the step, the root modules get the inputs
    that the baseline's got, and the random numbers begin alike.

    How far values may be apart is not a fixed tolerance: the baseline's step is run three
    more times with every operation's result moved at random by one unit in the last place of
    the coarser of the two dtypes, and four times the spread of each result is what rounding
    explains. Of large results 65,536 evenly spaced elements are compared; "identical" is
    said of all bits, of an operation's first output.

    With several root modules (generator and discriminator) each gets the inputs that the
    baseline's got: what one of them does differently does not reach the others.

    Args:
        baseline: (model, step_fn) of the program that works.
        modified: (model, step_fn) of the one that does not.
        rename: dict or function from the baseline's names to the modified model's.

    Raises:
        UsageError: one of the two is not (model, step_fn), or there is no memory to keep
            what must be put back; nothing has been changed then.
        Exception: whatever one of the steps raises; everything has been put back.

    Example:
        >>> import torch, nanhunt
        >>> def program(dtype):
        ...     model = torch.nn.Linear(2, 1)
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ...     def step():
        ...         optimizer.zero_grad()
        ...         model(torch.ones(1, 2)).to(dtype).exp().sum().backward()
        ...         optimizer.step()
        ...     return model, step
        >>> found = nanhunt.compare(program(torch.float32), program(torch.float16))
        >>> found.first_dtype.modified.dtype
        'float16'
    """
    one, other = _program(baseline, "baseline"), _program(modified, "modified")
    with contextlib.closing(one), contextlib.closing(other):
        one.generators = [g.get_state() for g in one.own_generators]
        one.run_and_undo()
        first_ops, given = one.ops, one.inputs
        other.start, other.given, other.generators = (
            one.start,
            _renamed(given, rename),
            one.generators,
        )
        unmatched = _share_weights(one, other, rename)
        other.run_and_undo()
        matches = _align(first_ops, other.ops, rename)
        tolerances, notes = _tolerances(one, first_ops, other.ops, matches)
        found = _comparison(one, other, first_ops, matches, tolerances, unmatched)
        return dataclasses.replace(found, notes=tuple(notes))


def _program(given: Any, name: str) -> RecordedStep:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise UsageError(f"{name} must be (model, step_fn), not {type(given).__name__}")
    return RecordedStep(*given)


def _to_modified(name: str, rename: Rename) -> str:
    if rename is None:
        return name
    if isinstance(rename, Mapping):
        for old, new in rename.items():
            if name == old or name.startswith(f"{old}."):
                return new + name[len(old) :]
        return name
    return rename(name)


def _renamed(given: dict[str, Any], rename: Rename) -> dict[str, Any]:
    return {_to_modified(key, rename): value for key, value in given.items()}


def _share_weights(one: RecordedStep, other: RecordedStep, rename: Rename) -> list[str]:
    """Gives the baseline's weights to the other; returns the names that have no counterpart."""
    values = {_to_modified(name, rename): t for name, t in one.named_tensors().items()}
    mine = other.named_tensors()
    for name, tensor in mine.items():
        value = values.get(name)
        if value is not None and value.shape == tensor.shape and not is_lazy(tensor):
            other.weights[name] = value.detach().clone()
    return [name for name in mine if name not in other.weights]


# -- which operation belongs to which ----------------------------------------------------------


def _align(first: list[Recorded], second: list[Recorded], rename: Rename) -> list[Match]:
    """Pairs operations by module and order within it, in the order of the baseline."""
    groups: dict[str | None, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for index, op in enumerate(first):
        module = op.side.module
        key = module if module is None else _to_modified(module, rename)
        groups[key][0].append(index)
    for index, op in enumerate(second):
        groups[op.side.module][1].append(index)
    matches: list[Match] = []
    for mine, theirs in groups.values():
        matches += _align_group(first, second, mine, theirs)
    return _in_order(matches)


def _align_group(
    first: list[Recorded], second: list[Recorded], mine: list[int], theirs: list[int]
) -> list[Match]:
    keys = [first[i].side.op for i in mine], [second[i].side.op for i in theirs]
    found: list[Match] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        if tag == "equal":
            found += list(zip(mine[a:b], theirs[c:d], strict=True))
        else:
            found += [(index, None) for index in mine[a:b]]
            found += [(None, index) for index in theirs[c:d]]
    return found


def _in_order(matches: list[Match]) -> list[Match]:
    """The baseline's order; what only the modified one has stands before what follows it there."""
    place = {b: a for a, b in matches if a is not None and b is not None}
    following = float("inf")
    before: dict[int, float] = {}
    for index in sorted((b for _, b in matches if b is not None), reverse=True):
        if index in place:
            following = float(place[index])
        before[index] = following
    return sorted(
        matches,
        key=lambda m: (
            (float(m[0]), 1, 0) if m[0] is not None else (before[m[1] or 0], 0, m[1] or 0)
        ),
    )


# -- what rounding explains ----------------------------------------------------------------------


def _tolerances(
    one: RecordedStep, first: list[Recorded], second: list[Recorded], matches: list[Match]
) -> tuple[dict[int, float], list[str]]:
    """Per operation of the baseline, how far its result may be off by rounding alone.

    Returns:
        The tolerances, and notes about runs that could not be used.
    """
    sizes: dict[int, float] = {}
    for mine, theirs in matches:
        if mine is not None:
            dtypes = [first[mine].side.dtype]
            dtypes += [second[theirs].side.dtype] if theirs is not None else []
            sizes[mine] = max(_EPSILON.get(dtype, 0.0) for dtype in dtypes)
    spread: dict[int, float] = defaultdict(float)
    notes: list[str] = []
    forget_noise()
    one.noise = lambda number: sizes.get(number, 0.0)
    for _ in range(NOISY_RUNS):
        one.run_and_undo()
        if [op.side.op for op in one.ops] != [op.side.op for op in first]:
            notes = ["rounding noise changed the baseline's own course: tolerances are too narrow"]
            continue
        for index, (plain, noisy) in enumerate(zip(first, one.ops, strict=True)):
            spread[index] = max(spread[index], _distance(plain, noisy) or 0.0)
    tolerances = {
        index: MARGIN * spread[index] + sizes.get(index, 0.0) * (first[index].side.absmax or 0.0)
        for index in range(len(first))
    }
    return tolerances, notes


def _distance(one: Recorded, other: Recorded) -> float | None:
    """Largest difference of the sampled values; Inf where only one of them is finite."""
    if one.sample is None or other.sample is None or one.sample.shape != other.sample.shape:
        return None
    same = (one.sample == other.sample) | (one.sample.isnan() & other.sample.isnan())
    gap = torch.where(same, torch.zeros_like(one.sample), (one.sample - other.sample).abs())
    return _largest(gap)


def _largest(gap: Tensor) -> float:
    return float(torch.where(gap.isnan(), float("inf"), gap).max()) if gap.numel() else 0.0


# -- the result --------------------------------------------------------------------------------


def _comparison(
    one: RecordedStep,
    other: RecordedStep,
    first: list[Recorded],
    matches: list[Match],
    tolerances: dict[int, float],
    unmatched: list[str],
) -> Comparison:
    pairs = [_pair(first, other.ops, match, tolerances) for match in matches]
    given, own = other.shared_inputs
    inputs = "shared"
    if own or not given:
        inputs = (
            f"not shared for {own} of {given + own} calls of the root modules: other shapes or "
            "dtypes, or more calls than the baseline's"
            if given + own
            else "not shared: the step calls no root module"
        )
    both = [pair for pair in pairs if pair.baseline is not None and pair.modified is not None]
    return Comparison(
        title=f"{one.report.title} against {other.report.title}",
        first_dtype=next((pair for pair in both if not pair.same_dtype), None),
        first_value=next((p for p in both if p.status in ("different", "shape")), None),
        pairs=tuple(pairs),
        weights_shared=len(other.weights),
        weights_unmatched=tuple(unmatched),
        inputs=inputs,
    )


def _pair(
    first: list[Recorded], second: list[Recorded], match: Match, tolerances: dict[int, float]
) -> Pair:
    mine = first[match[0]] if match[0] is not None else None
    theirs = second[match[1]] if match[1] is not None else None
    if mine is None or theirs is None:
        status = "only in the modified" if mine is None else "only in the baseline"
        return Pair(status, mine.side if mine else None, theirs.side if theirs else None)
    if mine.side.shape != theirs.side.shape:
        return Pair("shape", mine.side, theirs.side)
    assert match[0] is not None
    tolerance = tolerances[match[0]]
    difference = _distance(mine, theirs)
    if mine.side.dtype == theirs.side.dtype and mine.bits == theirs.bits:
        status = "identical"
    elif difference is not None and difference <= tolerance:
        status = "rounding"
    else:
        status = "different"
    return Pair(status, mine.side, theirs.side, difference, tolerance)
