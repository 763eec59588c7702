"""Values of tensors, reduced on their own device: a cheap screen, exact counts, statistics, bits.

The screen is one sum per tensor: a sum over a NaN or an Inf is never finite, and it runs
at memory speed where `isfinite().all()` costs many times that. It can trip on finite data
whose sum overflows, so whoever acts on it asks `count_bad` first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from nanhunt.core.tensors.dtypes import BITS, dtype_name, largest_number
from nanhunt.core.tensors.trees import held
from nanhunt.records.report import TensorStats
from nanhunt.torch_private import (
    is_transformed,
    is_wrapper,
    local_part,
    stored_values,
    tree_nodes,
)

_CHUNK = 1 << 22


def real_values(tensor: Tensor) -> Tensor | None:
    """Returns the numbers in a floating-point or complex tensor as a plain real tensor.

    Complex tensors come back as pairs of reals, sparse ones as their stored values, 8-bit
    floats as float32 (they have no arithmetic of their own), distributed ones as this process's
    part.

    Returns:
        None when there is nothing to look at: integers, meta and quantized tensors, other
        wrapper subclasses, tensors inside a function transform, lazily initialised parameters.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta:
        return None
    tensor = local_part(tensor)
    if tensor.is_quantized or is_wrapper(tensor):
        return None
    if is_transformed(tensor):  # inside vmap or func.grad
        return None
    if is_lazy(tensor):
        return None
    values = tensor.detach()
    if values.layout != torch.strided:
        values = _stored_values(values)
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj())
    elif values.itemsize == 1:
        values = values.to(torch.float32)
    return values.resolve_neg()


def is_lazy(tensor: Tensor) -> bool:
    """Whether a parameter or buffer of a lazy module has no shape yet."""
    return isinstance(tensor, UninitializedParameter | UninitializedBuffer)


def _stored_values(tensor: Tensor) -> Tensor:
    if tensor.layout == torch.sparse_coo:
        return stored_values(tensor)
    return tensor.values()


@torch.no_grad()
def screen(tensors: Iterable[Tensor]) -> Tensor | None:
    """Reduces tensors to one number that is finite if all of them are.

    Returns:
        A 0-dimensional float32 tensor on the first one's device, not yet synchronised;
        None when there is nothing to look at. Non-finite data always make it non-finite;
        finite data may, when their sum overflows.
    """
    sums = [
        torch.sum(values, dtype=torch.float32 if values.itemsize < 4 else None)
        for values in map(real_values, tensors)
        if values is not None
    ]
    if not sums:
        return None
    # Each sum is folded to zero or NaN before they meet: finite sums must not overflow together.
    home = sums[0].device
    return torch.stack([(total * 0).to(home, torch.float32) for total in sums]).sum()


@torch.no_grad()
def exact_screen(tensors: Iterable[Tensor]) -> Tensor | None:
    """Like `screen`, but finite data never trip it; several times as slow."""
    flags = [
        torch.isfinite(values).all() for values in map(real_values, tensors) if values is not None
    ]
    if not flags:
        return None
    ok = torch.stack([flag.to(flags[0].device) for flag in flags]).all()
    return torch.where(ok, 0.0, math.nan)


@torch.no_grad()
def count_bad(tensor: Tensor) -> tuple[int, int, int]:
    """Counts NaN, +Inf and -Inf; a complex element counts for each bad part."""
    values = real_values(tensor)
    if values is None or values.numel() == 0:
        return 0, 0, 0
    total = torch.sum(values, dtype=torch.float32 if values.itemsize < 4 else None).item()
    if math.isfinite(total):
        return 0, 0, 0
    counts = torch.stack(
        [torch.isnan(values).sum(), (values == math.inf).sum(), (values == -math.inf).sum()]
    )
    nan, posinf, neginf = counts.tolist()
    return int(nan), int(posinf), int(neginf)


@torch.no_grad()
def largest(tensors: Iterable[Tensor]) -> Tensor | None:
    """Largest magnitude over tensors, as a 0-dimensional float32 tensor on the device."""
    sizes = []
    for tensor in tensors:
        values = real_values(tensor)
        if values is not None and values.numel():
            low, high = torch.aminmax(values)
            sizes.append(torch.maximum(-low, high).float())
    if not sizes:
        return None
    return torch.stack([size.to(sizes[0].device) for size in sizes]).max()


def is_bad(tensor: Tensor) -> bool:
    """Whether any element is NaN or infinite (exact)."""
    return any(count_bad(tensor))


@torch.no_grad()
def tensor_stats(tensor: Tensor, name: str) -> TensorStats:
    """Computes exact statistics; what cannot be computed is said in `note`."""
    kind = dtype_name(tensor.dtype)
    nested, tensor = tensor.is_nested, local_part(tensor) if tensor.is_nested else tensor
    shape = tuple(int(n) for n in tensor.shape)
    device = str(tensor.device)
    numel = math.prod(shape)
    values = real_values(tensor)
    if values is None:
        note = "" if not tensor.is_floating_point() else "values cannot be read"
        return TensorStats(name, shape, kind, device, numel, note=note)
    nan, posinf, neginf = count_bad(tensor)
    finite = values[torch.isfinite(values)].to(torch.float64)
    magnitude = finite.abs()
    positive = magnitude[magnitude > 0]
    absmax = magnitude.max().item() if magnitude.numel() else None
    first = None
    if nan + posinf + neginf and tensor.layout == torch.strided and not nested:
        where = torch.nonzero(~torch.isfinite(values))[0].tolist()
        first = tuple(int(i) for i in where[: len(shape)])
    return TensorStats(
        name=name,
        shape=shape,
        dtype=kind,
        device=device,
        numel=numel,
        nan=nan,
        posinf=posinf,
        neginf=neginf,
        zeros=int(magnitude.numel() - positive.numel()),
        absmin=positive.min().item() if positive.numel() else None,
        absmax=absmax,
        mean=finite.mean().item() if finite.numel() and not tensor.is_complex() else None,
        headroom=_headroom(tensor.dtype, absmax),
        first_bad=first,
    )


def _headroom(dtype: torch.dtype, absmax: float | None) -> float | None:
    if not absmax:
        return None
    return math.log2(largest_number(dtype)) - math.log2(absmax)


@torch.no_grad()
def fingerprint(tensor: Tensor) -> tuple[int, int]:
    """Two 64-bit sums over the bits of a tensor, the second weighted by position.

    Equal bits give equal fingerprints; different bits practically never do.
    """
    tensor = local_part(tensor)
    if tensor.layout != torch.strided:
        tensor = _stored_values(tensor)
    if tensor.is_meta or tensor.is_quantized or is_wrapper(tensor):
        return 0, 0
    bits = as_integers(tensor.detach().resolve_conj().resolve_neg().contiguous()).flatten()
    plain = weighted = 0
    for start in range(0, bits.numel(), _CHUNK):
        chunk = bits[start : start + _CHUNK].to(torch.int64)
        weights = torch.arange(1, chunk.numel() + 1, device=chunk.device) * 2 + 1
        plain += int(chunk.sum().item())
        weighted += int((chunk * weights).sum().item()) * (start + 1)
    return plain, weighted


def as_integers(tensor: Tensor) -> Tensor:
    """The bits of a plain tensor as integers of the same width."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.dtype == torch.bool:
        return tensor.to(torch.uint8)
    return tensor.view(BITS[tensor.itemsize])


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and bits (NaN payloads included)."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return fingerprint(first) == fingerprint(second)


def plain_tensors(value: object, depth: int = 4) -> Sequence[Tensor]:
    """Tensors inside nested tuples, lists, dicts, dataclasses and registered classes, in order.

    Called for every output of every module, so the commonest containers are told apart here;
    what pytree does not know (an ordinary dataclass, a subclass of dict) is gone into as well.
    """
    if isinstance(value, Tensor):
        return [value]
    if depth == 0:
        return []
    items: Iterable[object] = ()
    if isinstance(value, dict):
        items = value.values()
    elif isinstance(value, list | tuple):
        items = value
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        items = [getattr(value, name, None) for name in value.__dataclass_fields__]
    elif type(value) in tree_nodes:
        items = held(value)
    found: list[Tensor] = []
    for item in items:
        if isinstance(item, Tensor):
            found.append(item)
        else:
            found += plain_tensors(item, depth - 1)
    return found
