"""The model under watch: its modules, parameters and buffers, each with its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from nanhunt.core.tensors.stats import is_lazy
from nanhunt.errors import MetaDeviceError, NotAModuleError
from nanhunt.torch_private import COMPILED_CHILD, buffers_in, is_compiled


class Target:
    """One module, or several with a prefix each, seen as one tree of names.

    Args:
        model: a module, a dict of modules (names become `key.path`), or a sequence of
            modules (`0.path`).

    Attributes:
        modules: by every name, those of wrappers of `torch.compile` included.
        named: by the first name, without such wrappers.
        parameters: by name.

    Raises:
        NotAModuleError: it is none of these, or has no parameters.
        MetaDeviceError: every parameter is on the meta device.
    """

    def __init__(self, model: Any) -> None:
        self.roots = _roots(model)
        self.modules: dict[str, nn.Module] = {}
        self.named: dict[str, nn.Module] = {}
        self.parameters: dict[str, nn.Parameter] = {}
        self._names: dict[int, str] = {}
        self.refresh()
        if not self.parameters:
            raise NotAModuleError(
                "the model has no parameters, so there is no training to watch. "
                "Pass the module that is trained, or a dict of modules."
            )
        if all(parameter.is_meta for parameter in self.parameters.values()):
            raise MetaDeviceError(
                "the model is on the meta device and has no values. Move it with "
                "`model.to_empty(device=...)` and initialise it before the hunt."
            )

    def refresh(self) -> None:
        """Reads the tree anew; lazy modules create parameters in their first step."""
        self.modules = {
            _join(prefix, path): module
            for prefix, root in self.roots.items()
            for path, module in root.named_modules()
        }
        self.parameters = {
            _join(prefix, path): parameter
            for prefix, root in self.roots.items()
            for path, parameter in root.named_parameters()
        }
        # The first name of a shared module wins, as in `named_modules`.
        self._names = {}
        for name, module in self.modules.items():
            self._names.setdefault(id(module), _without_wrapper(name))
        self.named = {self._names[id(module)]: module for module in self.modules.values()}

    def module_name(self, module: nn.Module) -> str | None:
        """The module's qualified name, or None when it is no part of the model."""
        return self._names.get(id(module))

    def buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yields (qualified name, buffer) as they are now; buffers may be replaced any time."""
        for name, module in self.modules.items():
            for key, buffer in buffers_in(module).items():
                if buffer is not None:
                    yield _join(_without_wrapper(name), key), buffer

    def owns(self, optimizer: Optimizer) -> bool:
        """Whether the optimizer holds a parameter of the model."""
        mine = {id(parameter) for parameter in self.parameters.values()}
        return any(id(p) in mine for p in parameters_of(optimizer))

    def named_parameters(self, optimizer: Optimizer) -> list[tuple[str, Tensor]]:
        """An optimizer's parameters with their names in the model."""
        names = {id(p): name for name, p in self.parameters.items()}
        return [
            (names.get(id(p), f"parameter {i} outside the model"), p)
            for i, p in enumerate(parameters_of(optimizer))
        ]

    def named_state(self, optimizer: Optimizer) -> list[tuple[str, Tensor]]:
        """The floating-point tensors of an optimizer's state with their names."""
        return [
            (f"optimizer.state[{name}].{key}", value)
            for name, parameter in self.named_parameters(optimizer)
            for key, value in optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor) and key != "step"
        ]

    @property
    def training(self) -> bool:
        """Whether any module is in training mode."""
        return any(module.training for module in self.modules.values())

    @property
    def compiled(self) -> bool:
        """Whether a part of the model runs through `torch.compile`."""
        return any(is_compiled(module) for module in self.modules.values())

    def title(self) -> str:
        """The model in a few words."""
        names = ", ".join(type(root).__name__ for root in self.roots.values())
        numbers = [p.numel() for p in self.parameters.values() if not is_lazy(p)]
        return f"{names}, {sum(numbers):,} parameters in {len(numbers)} tensors"


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """All parameters in an optimizer's groups, in order."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def innermost(optimizer: Optimizer) -> Optimizer:
    """The optimizer itself, or the one that it only hands on to, as Accelerate's wrapper does.

    That has the very same groups and state; one that keeps a state of its own (Lookahead) has not.
    """
    for held in vars(optimizer).values():
        # `type(...)` instead of isinstance: proxies may act on `__class__`.
        if (
            issubclass(type(held), Optimizer)
            and held is not optimizer
            and held.param_groups is optimizer.param_groups
            and held.state is optimizer.state
        ):
            return innermost(held)
    return optimizer


def _roots(model: Any) -> dict[str, nn.Module]:
    if isinstance(model, nn.Module):
        return {"": model}
    named: dict[str, Any] = {}
    if isinstance(model, Mapping):
        named = {str(key): module for key, module in model.items()}
    elif isinstance(model, Sequence) and not isinstance(model, str):
        named = {str(index): module for index, module in enumerate(model)}
    if named and all(isinstance(module, nn.Module) for module in named.values()):
        return named
    raise NotAModuleError(
        f"the model is of type {type(model).__name__}, not a torch.nn.Module. Pass the module "
        "that is trained, or a dict or list of modules (generator and discriminator)."
    )


def _join(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix and path else prefix or path


def _without_wrapper(name: str) -> str:
    """Drops the level that `torch.compile` puts between a module and its children."""
    return ".".join(part for part in name.split(".") if part != COMPILED_CHILD)
