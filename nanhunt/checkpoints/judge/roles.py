"""What each tensor of a checkpoint is for, told by its name and by the names beside it.

Names of optimizer state: `torch/optim/*.py`, and Adafactor's as in `transformers`. Names of
BatchNorm's buffers: `torch.nn.modules.batchnorm._NormBase`. A scaler's: `GradScaler.state_dict`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from nanhunt.checkpoints.formats.contents import Contents, Entry, Keys, Scalar

MEAN, VARIANCE, COUNT = "running_mean", "running_var", "num_batches_tracked"
STATISTICS = (MEAN, VARIANCE, COUNT)

# Averages of squares: never negative.
SECOND_MOMENTS = frozenset(
    {
        "exp_avg_sq",
        "max_exp_avg_sq",
        "exp_avg_sq_row",
        "exp_avg_sq_col",
        "square_avg",
        "acc_delta",
        "exp_inf",
    }
)
_OPTIMIZER = SECOND_MOMENTS | {"exp_avg", "momentum_buffer", "grad_avg"}
_SCALER = {"scale", "growth_factor", "backoff_factor"}


@dataclasses.dataclass(frozen=True)
class Roles:
    """Which keys of a checkpoint are optimizer state, loss scales, buffers and parameters.

    Attributes:
        optimizers: where optimizers' state dicts stand.
        scalers: where GradScalers' state dicts stand.
        buffers: keys of tensors that a model says are buffers.
        parameters: keys of those that it says are parameters.
    """

    optimizers: frozenset[Keys]
    scalers: frozenset[Keys]
    buffers: frozenset[str]
    parameters: frozenset[str]

    def of(self, entry: Entry) -> str:
        """`"optimizer"`, `"buffer"` or `"weight"`."""
        if leaf(entry.key) in _OPTIMIZER or self._in_optimizer(entry.keys, "state"):
            return "optimizer"
        if self.is_setting(entry):
            return "optimizer"
        named = leaf(entry.key) in STATISTICS or entry.key in self.buffers
        return "buffer" if named else "weight"

    def is_setting(self, number: Scalar | Entry) -> bool:
        """Whether a number or tensor is an option of an optimizer, such as its learning rate."""
        return self._in_optimizer(number.keys, "param_groups")

    def is_step(self, scalar: Scalar) -> bool:
        """Whether a number is a parameter's count of updates."""
        return scalar.keys[-1:] == ("step",) and self._in_optimizer(scalar.keys, "state")

    def is_loss_scale(self, scalar: Scalar) -> bool:
        """Whether a number is the scale of a GradScaler."""
        return scalar.keys[-1:] == ("scale",) and scalar.keys[:-1] in self.scalers

    def _in_optimizer(self, keys: Keys, part: str) -> bool:
        return any(
            key == part and keys[:place] in self.optimizers for place, key in enumerate(keys)
        )


def roles_in(
    contents: Contents, buffers: Collection[str] = (), parameters: Collection[str] = ()
) -> Roles:
    """Finds optimizers and scalers in a checkpoint.

    Args:
        contents: the checkpoint.
        buffers, parameters: keys that a model says are these.
    """
    optimizers = set()
    numbers: dict[Keys, set[str]] = {}
    for scalar in contents.scalars:
        numbers.setdefault(scalar.keys[:-1], set()).update(scalar.keys[-1:])
        for place, key in enumerate(scalar.keys):
            if key == "param_groups":
                optimizers.add(scalar.keys[:place])
    scalers = {keys for keys, names in numbers.items() if names >= _SCALER}
    known = frozenset(buffers), frozenset(parameters)
    return Roles(frozenset(optimizers), frozenset(scalers), *known)


def leaf(key: str) -> str:
    """The last part of a dotted name, without the place of a shard in its tensor."""
    return without_shard(key).rpartition(".")[2]


def without_shard(key: str) -> str:
    """A name without the place of a shard in its tensor."""
    owner, dot, last = key.rpartition(".")
    return owner + dot + last.partition("@")[0]


def shard(key: str) -> str:
    """The place of a shard in its tensor, as `distributed.read` puts it behind the name."""
    return key.rpartition(".")[2].partition("@")[2]


def siblings(entries: list[Entry]) -> dict[tuple[str, str], dict[str, int]]:
    """Positions of tensors in the list by their owner (file and prefix) and last name."""
    groups: dict[tuple[str, str], dict[str, int]] = {}
    for position, entry in enumerate(entries):
        owner, _, name = entry.key.rpartition(".")
        file = str(entry.span.file) if entry.span else ""
        groups.setdefault((file, owner), {})[name] = position
    return groups
