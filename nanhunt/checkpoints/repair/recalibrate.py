"""Running statistics of BatchNorm computed anew from data, without training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nanhunt.core.tensors.stats import is_bad
from nanhunt.errors import UsageError
from nanhunt.records.recalibration import Recalibration
from nanhunt.torch_private import InstanceNorm, NormWithStatistics


@torch.no_grad()
def recalibrate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    batches: int | None = None,
) -> Recalibration:
    """Computes all running statistics (BatchNorm, InstanceNorm) anew from data.

    Resets them, then runs the model forward with those layers in train mode and everything
    else in eval mode (no dropout), averaging the statistics of all batches alike, as
    `torch.optim.swa_utils.update_bn` does. A batch that makes a statistic non-finite is left
    out. Parameters, modes and momenta are as before afterwards; after an exception, and when no
    batch was usable, the statistics are too.

    Args:
        model: the model, on the device of the data.
        loader: batches. Of a tuple or list the first item goes into the model, of a dict all
            as keywords, unless `forward` says otherwise.
        forward: called with the model and a batch instead.
        batches: how many batches to take at most; all if None.

    Returns:
        Which layers, and from how many batches.

    Raises:
        UsageError: there is no layer with running statistics, or no usable batch.

    Source of the procedure: Wu and Johnson, "Rethinking 'Batch' in BatchNorm" (2021), section 3.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, NormWithStatistics) and module.running_mean is not None
    }
    if not layers:
        raise UsageError("the model has no layer with running statistics: nothing to recalibrate")
    before = {name: _statistics(layer) for name, layer in layers.items()}
    modes = {module: module.training for module in model.modules()}
    momenta = {layer: layer.momentum for layer in layers.values()}
    used = skipped = 0
    done = False
    try:
        _prepare(model, layers.values())
        for batch in itertools.islice(loader, batches):
            kept = {name: _statistics(layer) for name, layer in layers.items()}
            for layer in layers.values():
                if isinstance(layer, InstanceNorm):
                    layer.momentum = 1 / (used + 1)  # it takes None for 0: nothing would move
            (forward or _forward)(model, batch)
            if any(is_bad(value) for layer in layers.values() for value in _statistics(layer)):
                _put_back(layers, kept)
                skipped += 1
            else:
                used += 1
        if not used:
            raise UsageError(f"no usable batch to recalibrate with ({skipped} were not finite)")
        done = True
    finally:
        if not done:
            _put_back(layers, before)
        for layer, momentum in momenta.items():
            layer.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return Recalibration(tuple(layers), used, skipped)


def _prepare(model: nn.Module, layers: Iterable[NormWithStatistics]) -> None:
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the average of all batches, each with the same weight
        layer.train()


def _statistics(layer: NormWithStatistics) -> tuple[Tensor, ...]:
    kept = (layer.running_mean, layer.running_var, layer.num_batches_tracked)
    return tuple(value.clone() for value in kept if value is not None)


def _put_back(layers: dict[str, NormWithStatistics], kept: dict[str, tuple[Tensor, ...]]) -> None:
    for name, layer in layers.items():
        places = (layer.running_mean, layer.running_var, layer.num_batches_tracked)
        present = [place for place in places if place is not None]
        for place, value in zip(present, kept[name], strict=True):
            place.copy_(value)


def _forward(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, dict):
        return model(**batch)
    return model(batch[0]) if isinstance(batch, tuple | list) else model(batch)
