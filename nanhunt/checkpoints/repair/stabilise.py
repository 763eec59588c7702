"""`nanhunt.stabilise_batch_norm`: BatchNorm settings under which one odd batch does less harm."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from nanhunt.core.program.target import Target
from nanhunt.errors import UsageError
from nanhunt.torch_private import NormWithStatistics


@dataclasses.dataclass(frozen=True)
class BatchNormChange:
    """One setting of one layer.

    Attributes:
        module: qualified name of the layer.
        setting: `"momentum"` or `"eps"`.
        before, after: its value; a momentum of None is the cumulative average.
    """

    module: str
    setting: str
    before: float | None
    after: float | None

    def __str__(self) -> str:
        return f"{self.module}.{self.setting}: {self.before} -> {self.after}"


@dataclasses.dataclass(frozen=True)
class BatchNormChanges:
    """What `stabilise_batch_norm` did.

    Attributes:
        changes: settings that have another value now.
        layers: how many layers with running statistics there are.
        in_half: layers whose statistics are in half precision, where a variance above 65,504
            is Inf; `layer.float()` keeps them in float32.
    """

    changes: tuple[BatchNormChange, ...]
    layers: int
    in_half: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.changes)} settings changed in {self.layers} layers"]
        lines += [f"  {change}" for change in self.changes]
        if self.in_half:
            lines.append(f"  statistics in half precision: {', '.join(self.in_half)}")
        return "\n".join(lines)


def stabilise_batch_norm(
    model: Any, *, momentum: float | None = 0.01, eps: float | None = 1e-3
) -> BatchNormChanges:
    """Sets momentum and eps of all layers with running statistics, and says what it changed.

    A smaller momentum gives one batch less weight in the statistics; a larger eps bounds what a
    channel of almost no variance is multiplied with, `1 / sqrt(eps)`. Neither keeps a NaN or an
    Inf out, for that is what the policies of `guard` are for, and the training is another one
    from here on.

    Args:
        model: a module, or a dict or sequence of modules.
        momentum: weight of a new batch, between 0 and 1; None leaves it.
        eps: added to the variance, in its units; above 0. None leaves it.

    Returns:
        What was changed.

    Raises:
        UsageError: a value cannot be used, or there is no such layer.

    Source of the defaults: the BatchNormalization layer of Keras (its momentum 0.99 is 0.01
    here, epsilon 0.001); those of PyTorch are 0.1 and 1e-5.
    """
    if momentum is not None and not 0 < momentum <= 1:
        raise UsageError(f"momentum must be above 0 and at most 1, not {momentum!r}")
    if eps is not None and not 0 < eps < float("inf"):
        raise UsageError(f"eps must be above 0 and finite, not {eps!r}")
    layers = {
        name: module
        for name, module in Target(model).named.items()
        if isinstance(module, NormWithStatistics) and module.running_mean is not None
    }
    if not layers:
        raise UsageError("the model has no layer with running statistics")
    changes = []
    for name, layer in layers.items():
        for setting, wanted in (("momentum", momentum), ("eps", eps)):
            before = getattr(layer, setting)
            if wanted is not None and before != wanted:
                setattr(layer, setting, wanted)
                changes.append(BatchNormChange(name, setting, before, wanted))
    means = [(name, layer.running_mean) for name, layer in layers.items()]
    half = [name for name, mean in means if mean is not None and mean.dtype == torch.float16]
    return BatchNormChanges(tuple(changes), len(layers), tuple(half))
