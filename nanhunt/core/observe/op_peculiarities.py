"""Facts that only one kind of operation has, as a table: rows fully masked, targets kept, gaps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _masked_rows(x: Tensor, dim: Any = -1, *_: Any, **__: Any) -> dict[str, float]:
    """Rows of a softmax that hold nothing but -Inf."""
    dims = list(dim) if isinstance(dim, list | tuple) else [dim]
    masked = x == -math.inf
    for axis in sorted((d % max(x.dim(), 1) for d in dims), reverse=True):
        masked = masked.all(axis)
    return {"rows": float(masked.numel()), "masked_rows": float(masked.sum().item())}


def _masked_queries(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **kw: Any) -> dict[str, float]:
    """Queries of an attention whose mask leaves them no key."""
    mask = kw.get("attn_mask", kw.get("attn_bias"))
    for value in rest:
        if isinstance(value, Tensor):
            mask = value
    if mask is None:
        return {}
    shut = ~mask if mask.dtype == torch.bool else mask == -math.inf
    rows = shut.all(-1)
    return {"rows": float(rows.numel()), "masked_rows": float(rows.sum().item())}


def _targets(
    x: Tensor, target: Tensor, weight: Any, reduction: int, ignore: int, *_: Any
) -> dict[str, float]:
    """Targets of a negative log-likelihood, and how many are not to be ignored."""
    kept = target != ignore
    facts = {"targets": float(target.numel()), "targets_kept": float(kept.sum().item())}
    if weight is not None:
        total = weight[target[kept]].sum().item() if kept.any() else 0.0
        facts["weight_of_targets"] = float(total)
    return facts


def _running_variance(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Tensor | None, *rest: Any
) -> dict[str, float]:
    """The smallest entry of a batch norm's running variance."""
    if variance is None or not variance.numel():
        return {}
    return {"smallest_variance": float(variance.min().item())}


def _smallest_gap(values: Tensor) -> float:
    """Smallest distance of neighbours in a sorted list, against its largest magnitude."""
    if values.shape[-1] < 2 or not torch.isfinite(values).all():
        return math.inf
    ordered = values.to(torch.float64).sort(-1).values
    scale = ordered.abs().amax().item() or 1.0
    return float(ordered.diff(dim=-1).min().item()) / scale


def _eigenvalues(out: Any) -> dict[str, float]:
    return {"gap": _smallest_gap(out[0])}


def _singular_values(out: Any) -> dict[str, float]:
    values = out[1]
    if not values.numel():
        return {}
    return {"gap": _smallest_gap(values), "smallest": float(values.min().item())}


def _triangle(out: Any, position: int) -> dict[str, float]:
    factor = out[position] if isinstance(out, list | tuple) else out
    diagonal = factor.diagonal(dim1=-2, dim2=-1).abs().to(torch.float64)
    if not diagonal.numel() or not torch.isfinite(diagonal).all():
        return {}
    largest = diagonal.amax().item() or 1.0
    return {"diagonal": float(diagonal.min().item()) / largest}


Table = dict[str, Callable[..., dict[str, float]]]

BEFORE: Table = {
    "aten._softmax": _masked_rows,
    "aten._log_softmax": _masked_rows,
    "aten._safe_softmax": _masked_rows,
    "aten.logsumexp": _masked_rows,
    "aten._scaled_dot_product_flash_attention_for_cpu": _masked_queries,
    "aten._scaled_dot_product_efficient_attention": _masked_queries,
    "aten._scaled_dot_product_attention_math": _masked_queries,
    "aten.native_batch_norm": _running_variance,
    "aten.cudnn_batch_norm": _running_variance,
    "aten._native_batch_norm_legit_no_training": _running_variance,
    "aten.nll_loss_forward": _targets,
    "aten.nll_loss2d_forward": _targets,
}

AFTER: Table = {
    "aten._linalg_eigh": _eigenvalues,
    "aten.linalg_eig": _eigenvalues,
    "aten._linalg_svd": _singular_values,
    "aten.linalg_qr": lambda out: _triangle(out, 1),
    "aten.linalg_cholesky_ex": lambda out: _triangle(out, 0),
}
