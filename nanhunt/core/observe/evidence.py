"""One operation looked at closely: what its inputs held where its output went bad.

The decisive experiment is to run the operation once more in double precision on the same
inputs. If the result is finite there, the dtype's range was too small and the number it would
have been is known; if it is not, the inputs themselves are at a singular point.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nanhunt.core.observe import op_table
from nanhunt.core.observe.op_arguments import (
    Argument,
    flat,
    named_tensors,
    scalars,
    written_positions,
)
from nanhunt.core.observe.op_peculiarities import AFTER, BEFORE, Table
from nanhunt.core.observe.op_records import Value
from nanhunt.core.program.torch_calls import Call
from nanhunt.core.tensors.binning import pictured
from nanhunt.core.tensors.stats import plain_tensors, real_values
from nanhunt.records.report import TensorStats
from nanhunt.torch_private import local_part, tree_map


class AtBad(NamedTuple):
    """An input at those positions where the output is bad, by broadcasting.

    Attributes:
        name: the argument's name.
        total: number of bad positions.
        zero, negative, at_one, beyond_one, posinf, neginf: how many hold such a value
            (`at_one`, `beyond_one`: by magnitude).
        minimum, maximum: of the finite values there; 0 when there are none.
    """

    name: str
    total: int
    zero: int
    negative: int
    at_one: int
    beyond_one: int
    posinf: int
    neginf: int
    minimum: float
    maximum: float


class Double(NamedTuple):
    """The same operation in double precision.

    Attributes:
        total: elements that are bad as computed.
        still_bad: how many of them are bad in double precision as well.
        absmax: largest magnitude that the others would have had.
    """

    total: int
    still_bad: int
    absmax: float


@dataclasses.dataclass(frozen=True)
class OpEvidence:
    """Everything known about one operation.

    Attributes:
        index, op: its number in the step and its name.
        inputs, outputs: statistics.
        scalars: numbers and flags among its arguments.
        at_bad: its inputs where its output (or, for a forward operation that is blamed for
            its backward, the gradient) is bad.
        double: what double precision gives, or None when it cannot be run.
        extras: facts that only this kind of operation has, see `peculiar`.
        at_origin: whether every bad element has index 0 in the last dimension, and how
            many dimensions from the end that holds for.
        call: the call above autograd.
        dtype: of the first output.
    """

    index: int
    op: str
    inputs: tuple[TensorStats, ...]
    outputs: tuple[TensorStats, ...] = ()
    scalars: dict[str, Any] = dataclasses.field(default_factory=dict)
    at_bad: tuple[AtBad, ...] = ()
    double: Double | None = None
    extras: dict[str, float] = dataclasses.field(default_factory=dict)
    at_origin: int = 0
    call: Call | None = None
    dtype: torch.dtype | None = None

    @property
    def packet(self) -> str:
        """The operation without its overload."""
        return op_table.packet(self.op)

    def bad_input(self, *names: str) -> AtBad | None:
        """The input of one of these names at the bad positions; the first one by default."""
        wanted = (entry for entry in self.at_bad if not names or entry.name in names)
        return next(wanted, None)


class EvidenceCollector:
    """Collects the evidence of one operation, before and after it runs.

    Args:
        index, func, args, kwargs: the operation.
        call: the call above autograd.
    """

    def __init__(self, index: int, func: Any, args: Any, kwargs: Any, call: Call | None) -> None:
        self._func = func
        named = list(named_tensors(func, args, kwargs))
        # Copies, for the operation may write into its inputs.
        self._inputs = [(a, a.tensor.detach().clone()) for a in named]
        self._evidence = OpEvidence(
            index=index,
            op=str(func),
            inputs=tuple(pictured(a.tensor, _label(a)) for a in named),
            scalars=scalars(func, args, kwargs),
            extras=_peculiar(BEFORE, func, args, kwargs),
            call=call,
        )
        self._double = _run_double(func, args, kwargs)
        self._outputs: list[Tensor] = []

    def after(self, results: list[tuple[Tensor, Value]], out: Any) -> OpEvidence:
        """Notes the outputs, and the inputs where the first bad output is bad."""
        outputs = [tensor for tensor, _ in results]
        worst = next((i for i, tensor in enumerate(outputs) if _any_bad(tensor)), None)
        evidence = dataclasses.replace(
            self._evidence,
            outputs=tuple(pictured(tensor, value.name) for tensor, value in results),
            dtype=outputs[0].dtype if outputs else None,
            extras={**self._evidence.extras, **_peculiar(AFTER, self._func, (out,), {})},
        )
        self._evidence = evidence
        if worst is None:
            return evidence
        bad = bad_mask(outputs[worst])
        double = None
        if self._double is not None and worst < len(self._double):
            double = _compare(bad, self._double[worst])
        return dataclasses.replace(
            evidence,
            dtype=outputs[worst].dtype,
            at_bad=self.inputs_at(bad, results[worst][1].item),
            double=double,
            at_origin=_dims_at_origin(bad),
        )

    def inputs_at(self, bad: Tensor, item: int | None = None) -> tuple[AtBad, ...]:
        """The inputs at the positions of a mask, as far as they broadcast to its shape.

        Args:
            bad: the mask.
            item: which entry of lists of tensors belongs to it.
        """
        found = (_at(a.name, tensor, bad) for a, tensor in self._inputs if a.item in (None, item))
        number = self._evidence.scalars.get("other")
        plain = [_number("other", float(number), bad)] if isinstance(number, int | float) else []
        return tuple(entry for entry in (*found, *plain) if entry is not None)


def bad_mask(tensor: Tensor) -> Tensor:
    """Which elements are not finite; complex elements when either part is not."""
    values = real_values(tensor)
    if values is None:
        return torch.zeros(tensor.shape, dtype=torch.bool, device=tensor.device)
    bad = ~torch.isfinite(values)
    return bad.any(-1) if tensor.is_complex() else bad


def _any_bad(tensor: Tensor) -> bool:
    return bool(bad_mask(tensor).any())


def _label(argument: Argument) -> str:
    return argument.name if argument.item is None else f"{argument.name}[{argument.item}]"


def _at(name: str, tensor: Tensor, bad: Tensor) -> AtBad | None:
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.is_meta)
    values = tensor if whole else real_values(tensor)
    if values is None or tensor.layout != torch.strided or tensor.is_quantized:
        return None
    if tensor.is_complex():
        values = values.to(torch.float64).norm(dim=-1)
    try:
        there = values.to(torch.float64).expand(bad.shape)[bad]
    except RuntimeError:  # does not broadcast
        return None
    if not there.numel():
        return None
    finite = there[torch.isfinite(there)]
    size = there.abs()
    counts = torch.stack(
        [
            (there == 0).sum(),
            (there < 0).sum(),
            (size == 1).sum(),
            ((size > 1) & torch.isfinite(there)).sum(),
            (there == math.inf).sum(),
            (there == -math.inf).sum(),
        ]
    ).tolist()
    zero, negative, at_one, beyond, posinf, neginf = counts
    low, high = (finite.min().item(), finite.max().item()) if finite.numel() else (0.0, 0.0)
    return AtBad(name, there.numel(), zero, negative, at_one, beyond, posinf, neginf, low, high)


def _number(name: str, value: float, bad: Tensor) -> AtBad | None:
    """A number in the program as an operand."""
    return _at(name, torch.tensor(value, dtype=torch.float64, device=bad.device), bad)


def _dims_at_origin(bad: Tensor) -> int:
    """For how many dimensions, counted from the last, every bad element has index 0."""
    where = torch.nonzero(bad)
    dims = 0
    for dim in range(bad.dim() - 1, -1, -1):
        if bad.shape[dim] == 1 or bool((where[:, dim] != 0).any()):
            break
        dims += 1
    return dims


def _compare(bad: Tensor, double: Tensor) -> Double | None:
    double = local_part(double)
    if double.shape != bad.shape:
        return None
    magnitude = double.abs() if double.is_complex() else double.to(torch.float64).abs()
    there = magnitude[bad]
    finite = there[torch.isfinite(there)]
    return Double(
        total=there.numel(),
        still_bad=there.numel() - finite.numel(),
        absmax=finite.max().item() if finite.numel() else 0.0,
    )


def _run_double(func: Any, args: Any, kwargs: Any) -> list[Tensor] | None:
    """The operation's results in double precision, in the order of the real ones.

    Returns:
        None for operations that draw random numbers (the run would not be the same after) and
        for those that do not exist in double precision.
    """
    if torch.Tag.nondeterministic_seeded in func.tags or "_foreach_" in str(func):
        return None
    try:
        with torch.no_grad():
            wide_args = tree_map(_widened, list(args))
            wide_kwargs = tree_map(_widened, dict(kwargs))
            out = func(*wide_args, **wide_kwargs)
            written = [
                a.tensor
                for a in named_tensors(func, wide_args, wide_kwargs)
                if a.position in written_positions(func)
            ]
    except Exception:  # noqa: BLE001  an operation may refuse in any way; then it stays unknown
        return None
    known = {id(tensor) for tensor in written}
    return [*written, *(tensor for _, tensor in flat(out) if id(tensor) not in known)]


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        if value.is_complex():
            return value.detach().to(torch.complex128, copy=True)
        if value.is_floating_point():
            return value.detach().to(torch.float64, copy=True)
        return value.clone()
    if isinstance(value, torch.dtype):
        if value.is_complex:
            return torch.complex128
        return torch.float64 if value.is_floating_point else value
    return value


def _peculiar(table: Table, func: Any, args: Any, kwargs: Any) -> dict[str, float]:
    look = table.get(op_table.packet(str(func)))
    if look is None or any(t.is_meta for t in plain_tensors(list(args))):
        return {}
    try:
        return look(*args, **kwargs)
    except Exception:  # noqa: BLE001  an unusual form of the operation: its facts stay unknown
        return {}
