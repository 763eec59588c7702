"""What nanhunt uses of torch that torch does not promise: every private name stands here alone.

So another version of torch is a job for this file. "Since" is the first minor version that has
the name (looked up in the Python sources and libraries of torch 2.0 to 2.9; 2.0 means "2.0 or
before"); nanhunt's own tests pass with 2.11 to 2.13. What runs for each tensor or operation is
an alias and not a wrapper.

Public, and therefore not here, but younger than the rest: `torch.compiler.set_stance` is there
since 2.6, `torch.amp.GradScaler` since 2.3.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn, overrides
from torch.amp import GradScaler
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.optim import Optimizer
from torch.utils import _device, _python_dispatch, _pytree
from torch.utils.data.dataloader import _BaseDataLoaderIter

# -- the autograd engine --------------------------------------------------------------------------

# The autograd node that this thread executes, or None: whether a call is made by a backward pass.
# Since 2.0. Without it neither the engine's threads nor recomputation can be told from the step.
current_node: Callable[[], Any] = torch._C._current_autograd_node

# The number that the next autograd node of this thread gets, and that of a node: links an
# operation of a backward pass with the forward line. Since 2.1. Without them a backward finding
# has no source line.
next_sequence_number: Callable[[], int] = torch._C._autograd._get_sequence_nr
sequence_number: Callable[[Any], int] = operator.methodcaller("_sequence_nr")

# The function of torch.autograd through which backward() and grad() start the engine; frames of
# it in a traceback are a backward pass. Since 2.3. Without it remedies that change calls are not
# in force while activation checkpointing computes again.
ENGINE = "_engine_run_backward"


def saved_tensors_hooks() -> tuple[Any, Any] | None:
    """The pair of hooks that packs what autograd saves on this thread now, if there is one.

    Since 2.8, the argument "also while torch.compile traces" included. Without it a worker thread
    would lack the hooks of the cell.
    """
    hooks: tuple[Any, Any] | None = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks


# Two thread-local switches of autograd that have a public setter and no public getter.
# Since 2.1. Without them a worker thread has torch's defaults.
multithreading_enabled: Callable[[], bool] = torch._C._is_multithreading_enabled
view_replay_enabled: Callable[[], bool] = torch._C._is_view_replay_enabled
# Enters the second. Since 2.0.
view_replay = torch.autograd.grad_mode._force_original_view_tracking

# Writes into tensors within `with versions_kept(tensors)` are no reason for autograd to refuse a
# later backward. Since 2.0, a tuple of tensors since 2.7. Without it a loop that is guarded cannot
# go on with the graph of an undone batch.
versions_kept = torch.autograd.grad_mode._unsafe_preserve_version_counter


def saved_statistics(node: Any) -> tuple[Tensor | None, Tensor | None]:
    """Mean and 1 / sqrt(variance + eps) of the batch, kept by the node of a batch norm.

    Seen in 2.13. None where a node has none: the panel then shows no batch statistics of it.
    """
    return getattr(node, "_saved_result1", None), getattr(node, "_saved_result2", None)


# -- tensors and storages -------------------------------------------------------------------------

# How often a tensor was written; raises RuntimeError for inference tensors. Since 2.0. Without it
# snapshots have to compare bits.
version: Callable[[Tensor], int] = operator.attrgetter("_version")

# The values of a sparse COO tensor, coalesced or not. Since 2.0. The public `values()` refuses
# tensors that are not coalesced.
stored_values: Callable[[Tensor], Tensor] = Tensor._values

# The identity of a storage, the same for all tensors that look at it. Since 2.0. Without it
# `data_ptr()` would have to do, which empty storages share.
storage_identity: Callable[[torch.UntypedStorage], int] = operator.attrgetter("_cdata")

# Where in its file the data of a storage lie that `torch.load` has put on the meta device, or
# None. Since 2.7. Without it checkpoints cannot be read piece by piece.
checkpoint_offset: Callable[[torch.UntypedStorage], int | None] = operator.attrgetter(
    "_checkpoint_offset"
)

# Copies a list of tensors into another, few kernels for all of them. Since 2.1. `copy_` of each
# is the same and slower.
copy_all: Callable[[list[Tensor], list[Tensor]], Any] = torch._foreach_copy_

# Whether a tensor lives inside vmap or func.grad. Since 2.0.
is_transformed: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor

# Whether a tensor is a subclass that holds other tensors, as DTensor does. Since 2.1.
is_wrapper: Callable[[Any], bool] = _python_dispatch.is_traceable_wrapper_subclass


def local_part(tensor: Tensor) -> Tensor:
    """The plain tensor in a distributed one (this process's part) or a nested one; else itself.

    Since 2.1. Without it distributed tensors cannot be looked at or put back: few operations are
    made for them, and those wait for other processes. Nested tensors have not even sizes.
    """
    if tensor.is_nested:
        values: Tensor = tensor.detach().values()
        return values
    local = getattr(tensor, "_local_tensor", None) if is_wrapper(tensor) else None
    return local if isinstance(local, Tensor) else tensor


# The signature of an operator (`torch.ops.aten.add.Tensor`): names and kinds of its arguments.
# Since 2.0. Without it a finding says which argument was bad by its position alone.
schema: Callable[[Any], Any] = operator.attrgetter("_schema")

# Trees of lists, tuples, dicts and registered classes. Since 2.0, `tree_leaves` since 2.2.
tree_leaves, tree_map, tree_map_only = _pytree.tree_leaves, _pytree.tree_map, _pytree.tree_map_only

# How objects of each registered class are taken apart, one level of them. Since 2.0. Without it
# tensors in outputs and caches of transformers, and in classes of the user's, are not found.
tree_nodes: dict[type[Any], Any] = _pytree.SUPPORTED_NODES

# -- modes ----------------------------------------------------------------------------------------

# A mode that sees every operation below autograd; documented by torch, but no public module has
# it. Since 2.0. Without it nothing can be located.
TorchDispatchMode: TypeAlias = _python_dispatch.TorchDispatchMode

# Within both, nobody's modes and tensor subclasses see what nanhunt computes. Since 2.0.
function_modes_off = torch._C.DisableTorchFunction
dispatch_modes_off = _python_dispatch._disable_current_modes

# The modes that this thread is in, outermost first, and one more without calling its `__enter__`.
# Since 2.0, in this form since 2.3. Without them a worker thread would lack the modes of the cell.
function_modes: Callable[[], list[Any]] = overrides._get_current_function_mode_stack
push_function_mode: Callable[[Any], None] = overrides._push_mode
pop_function_mode: Callable[[], Any] = overrides._pop_mode
dispatch_modes: Callable[[], list[Any]] = _python_dispatch._get_current_dispatch_mode_stack
push_dispatch_mode: Callable[[Any], None] = _python_dispatch._push_mode
pop_dispatch_mode: Callable[[], Any] = _python_dispatch._pop_mode

# The function mode of `with torch.device(...)` and of a default device. Since 2.0.
DeviceMode: TypeAlias = _device.DeviceContext


def default_device() -> torch.device | None:
    """The default device that was set on this thread, or None.

    Since 2.3 in this form. `torch.get_default_device()` answers "cpu" where none was set, and
    setting that would put a mode on torch's stack that was not there.
    """
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return context.device if context is not None else None


def shared_device() -> Any:
    """What torch holds to be the whole process's default device. Since 2.1."""
    return _device.CURRENT_DEVICE


def set_shared_device(device: Any) -> None:
    """Sets it; `torch.set_default_device` would change this thread's as well."""
    _device.CURRENT_DEVICE = device


def autocast_enabled(region: torch.autocast) -> bool:
    """Whether an autocast region turns autocast on, and not off. Since 2.0."""
    return bool(region._enabled)


# -- modules --------------------------------------------------------------------------------------

# A module's own parameters and buffers, by name, None among them: the live dicts. Since 2.0.
# `named_parameters` leaves out None and what occurs twice, and cannot hang one in.
parameters_in: Callable[[nn.Module], dict[str, nn.Parameter | None]] = operator.attrgetter(
    "_parameters"
)
buffers_in: Callable[[nn.Module], dict[str, Tensor | None]] = operator.attrgetter("_buffers")


def is_made(module: nn.Module) -> bool:
    """Whether `nn.Module.__init__` has been run. Since 2.0."""
    return hasattr(module, "_parameters")


# Under this name torch.compile's wrapper holds the module, and so it stands in the names of all
# parameters. Since 2.0.
COMPILED_CHILD = "_orig_mod"


def is_compiled(module: nn.Module) -> bool:
    """Whether it runs through torch.compile: as its wrapper, or by `module.compile()` (2.1)."""
    compiled = getattr(module, "_compiled_call_impl", None)
    return hasattr(module, COMPILED_CHILD) or compiled is not None


# The common bases of batch norms, of instance norms, and of all that keep running statistics.
# Since 2.0. Without them: the public classes one by one.
BatchNorm: TypeAlias = _BatchNorm
InstanceNorm: TypeAlias = _InstanceNorm
NormWithStatistics: TypeAlias = _NormBase

# -- optimizers, loss scalers, DataLoaders --------------------------------------------------------


def loss_scale(scaler: GradScaler) -> Tensor | None:
    """The scale as a tensor on its device; None before it was first used.

    Since 2.0. The public `get_scale()` waits for the device.
    """
    return scaler._scale


def set_loss_scale(scaler: GradScaler, value: float) -> None:
    """Sets the scale that is used next. Since 2.0.

    The public `update(value)` refuses a scaler that has not been used.
    """
    if scaler._scale is not None:
        scaler._scale.fill_(value)
    scaler._init_scale = value


# What a scaler knows of each optimizer in this step: its attribute, by the optimizer's id.
# Since 2.0. Without it a step with a scaler cannot be undone.
SCALER_STATES = "_per_optimizer_states"
scaler_states: Callable[[GradScaler], dict[int, dict[str, Any]]] = operator.attrgetter(
    SCALER_STATES
)


def found_inf(scaler: GradScaler, optimizer: Optimizer) -> bool:
    """Whether the scaler has found NaN or Inf in this optimizer's gradients. Since 2.0."""
    found = scaler_states(scaler)[id(optimizer)]["found_inf_per_device"]
    return any(bool(flag.item()) for flag in found.values())


def takes_loss_scale(optimizer: Optimizer) -> bool:
    """Whether it unscales, and skips, by itself, as fused ones do. Since 2.0."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def last_rates(scheduler: Any) -> list[Any] | None:
    """The learning rates a scheduler said last; None for one that says none. Since 2.0.

    The public `get_last_lr()` raises where there are none.
    """
    rates: list[Any] | None = getattr(scheduler, "_last_lr", None)
    return rates


# The base of what `iter(DataLoader)` gives, of one process and of many. Since 2.0. Without it the
# batches of DataLoaders would have to be taken at `DataLoader.__iter__`.
LoaderIterator: TypeAlias = _BaseDataLoaderIter


def is_tracing() -> bool:
    """Whether torch.jit.trace records what this thread computes. Since 2.0."""
    return torch._C._get_tracing_state() is not None


def compiler_loaded() -> bool:
    """Whether torch.compile was used: to set its stance would load it. Since 2.0."""
    return "torch._dynamo" in sys.modules


class LazyHooks:
    """The two hooks of a lazy module: one gives it its sizes, one is for loading without them."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._sizing = module._initialize_hook.id
        self._loading = module._load_hook.id
        self._size = module._forward_pre_hooks[self._sizing]
        self._load = module._load_state_dict_pre_hooks[self._loading]

    @classmethod
    def of(cls, module: Any) -> LazyHooks | None:
        """Those of a module that has no sizes yet; None for others."""
        return cls(module) if "_initialize_hook" in module.__dict__ else None

    def put_back(self) -> None:
        """Makes the module wait for its sizes again; its handles of the hooks are attributes."""
        hooks = self._module._forward_pre_hooks
        hooks[self._sizing] = self._size
        hooks.move_to_end(self._sizing, last=False)
        self._module._forward_pre_hooks_with_kwargs[self._sizing] = True
        self._module._load_state_dict_pre_hooks[self._loading] = self._load

    def take_off(self) -> None:
        """Ends the waiting."""
        self._module._initialize_hook.remove()
        self._module._load_hook.remove()
