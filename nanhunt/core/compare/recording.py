"""One step recorded operation by operation, on given inputs, weights and random numbers."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from nanhunt.core.hunting.engine import HuntEngine
from nanhunt.core.observe import op_table
from nanhunt.core.observe.observer import Activity
from nanhunt.core.observe.op_arguments import flat, is_view, written_positions
from nanhunt.core.program.module_stack import ModuleStack
from nanhunt.core.program.source_lines import Stack
from nanhunt.core.program.torch_calls import RunningCallMode
from nanhunt.core.snapshot.random_state import RandomState
from nanhunt.core.tensors.dtypes import dtype_name, real_part
from nanhunt.core.tensors.stats import fingerprint, real_values
from nanhunt.errors import UsageError
from nanhunt.records.comparison import OpSide
from nanhunt.records.report import Finding
from nanhunt.torch_private import TorchDispatchMode, tree_leaves, tree_map_only

SAMPLED = 1 << 16  # elements of each output that are kept to compare values, evenly spaced


@dataclasses.dataclass
class Recorded:
    """One operation of the forward pass.

    Attributes:
        side: what is told about it.
        sample: some of its output's numbers in float64, on the CPU; None if it has none.
        bits: a fingerprint of all of them.
    """

    side: OpSide
    sample: Tensor | None
    bits: tuple[int, int]


class OpTape(TorchDispatchMode):
    """Records every operation of the forward pass.

    Args:
        modules, calls: tell which module and which torch function is running.
        activity: what the step is doing.
        noise: relative rounding noise to put on the n-th operation's output, or 0.
    """

    def __init__(
        self,
        modules: ModuleStack,
        calls: RunningCallMode,
        activity: Activity,
        noise: Callable[[int], float],
    ) -> None:
        super().__init__()
        self.ops: list[Recorded] = []
        self.quiet = False
        self._modules, self._calls, self._activity = modules, calls, activity
        self._noise = noise

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.quiet or self._activity.in_backward() or self._activity.optimizer:
            return out
        first = next((t for _, t in flat(out)), None)
        if is_view(func) and not _reinterprets(args, first):
            return out
        if op_table.packet(str(func)) in op_table.UNINITIALISED:
            return out  # it holds whatever was there before: no result to compare
        stack = Stack(sys._getframe(1))
        if first is None or stack.update or not stack.lines:
            return out
        out = self._with_noise(func, out)
        first = next(t for _, t in flat(out))
        self.ops.append(self._record(func, first, stack))
        return out

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What runs in this block is no part of the step."""
        self.quiet = True
        try:
            yield
        finally:
            self.quiet = False

    def _with_noise(self, func: Any, out: Any) -> Any:
        size = self._noise(len(self.ops))
        fresh = isinstance(out, Tensor) and not written_positions(func) and not is_view(func)
        if not size or not fresh or not (out.is_floating_point() or out.is_complex()):
            return out
        shape, device = out.shape, out.device
        signs = torch.randint(0, 2, shape, generator=_generator(device), device=device) * 2 - 1
        return out * (1 + size * signs.to(real_part(out.dtype)))

    def _record(self, func: Any, tensor: Tensor, stack: Stack) -> Recorded:
        place, call = self._modules.place, self._calls.current
        values = real_values(tensor)
        sample = None
        if values is not None and values.numel():
            every = -(-values.numel() // SAMPLED)
            sample = values.reshape(-1)[::every].to(torch.float64).cpu().clone()
        finite = sample[torch.isfinite(sample)] if sample is not None else None
        side = OpSide(
            op=str(func),
            call=call.name if call is not None else "",
            module=place.module if place is not None else None,
            shape=tuple(int(n) for n in tensor.shape),
            dtype=dtype_name(tensor.dtype),
            absmax=float(finite.abs().max()) if finite is not None and finite.numel() else None,
            source=stack.sources()[-1],
        )
        return Recorded(side, sample, fingerprint(tensor))


def _reinterprets(args: Any, out: Tensor | None) -> bool:
    """Whether a view looks at its input as another dtype, as `view_as_complex` does."""
    given = next((t for value in args for _, t in flat(value)), None)
    return given is not None and out is not None and given.dtype != out.dtype


_GENERATORS: dict[torch.device, torch.Generator] = {}


def _generator(device: torch.device) -> torch.Generator:
    """A generator of our own: the step's random numbers must stay what they are."""
    if device not in _GENERATORS:
        _GENERATORS[device] = torch.Generator(device).manual_seed(0)
    return _GENERATORS[device]


def forget_noise() -> None:
    """The noise begins anew: the same comparison gives the same tolerances."""
    _GENERATORS.clear()


class RecordedStep(HuntEngine):
    """A hunt of one step that records its operations; it may be run several times.

    Attributes:
        ops: what the last run did.
        inputs: what the root modules were called with, per root, in order.
        start: the random numbers' state when it began.
        given: inputs to use instead, in the same form; None for the step's own.
        shared_inputs: how many calls got them, and how many did not fit.
    """

    def __init__(self, model: Any, step_fn: Callable[..., Any]) -> None:
        super().__init__(model, step_fn, trials=False, progress=False)
        self.ops: list[Recorded] = []
        self.inputs: dict[str, list[tuple[Any, Any]]] = {}
        self.start: RandomState | None = None
        self.generators: list[Any] = []
        self.given: dict[str, list[tuple[Any, Any]]] | None = None
        self.weights: dict[str, Tensor] = {}
        self.shared_inputs = [0, 0]
        self.noise: Callable[[int], float] = lambda _: 0.0

    def named_tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by name."""
        return {**self._target.parameters, **dict(self._target.buffers())}

    @property
    def own_generators(self) -> list[torch.Generator]:
        """Random generators of the program's own."""
        return [g for g in self._around.generators if isinstance(g, torch.Generator)]

    def run_and_undo(self) -> None:
        """Runs the step once and puts everything back."""
        self.step()
        self.rewind()

    def _step(self) -> Finding | None:
        for optimizer in self._optimizers:  # before the baseline's weights are written
            self._snapshot.before_optimizer(optimizer)
        if self._snapshot.missing:
            raise UsageError(
                f"a comparison must be able to put everything back: {self._snapshot.missing}"
            )
        self._prepare()
        activity = Activity()
        modules = ModuleStack(self._target, activity.in_backward, lambda function: function())
        calls = RunningCallMode(lambda: None)
        tape = OpTape(modules, calls, activity, self.noise)
        self._sentinel = self._make_sentinel(activity, None)
        self.inputs = {key: [] for key in self._target.roots}
        with self._sentinel, contextlib.ExitStack() as stack:
            stack.enter_context(self._fed(tape))
            for part in (modules, calls, tape):
                stack.enter_context(part)
            self._call_step()
        self._ledger.steps_run += 1
        self.ops = tape.ops
        return None

    @torch.no_grad()
    def _prepare(self) -> None:
        mine = self.named_tensors()
        for name, value in self.weights.items():
            mine[name].copy_(value)
        if self.start is not None:
            self.start.restore()
        else:
            self.start = RandomState.now()
        for generator, state in zip(self.own_generators, self.generators, strict=False):
            generator.set_state(state)

    @contextlib.contextmanager
    def _fed(self, tape: OpTape) -> Iterator[None]:
        """Notes what the root modules get, or gives them what they are to get."""
        handles = [
            root.register_forward_pre_hook(self._feeder(key, tape), with_kwargs=True)
            for key, root in self._target.roots.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _feeder(self, key: str, tape: OpTape) -> Callable[..., Any]:
        def feed(_module: Any, args: Any, kwargs: Any) -> Any:
            number = len(self.inputs[key])
            if self.given is None:
                with tape.paused():  # the step may write into them afterwards
                    self.inputs[key].append(tree_map_only(Tensor, _copy, (args, kwargs)))
                return None
            self.inputs[key].append(((), {}))  # only how many matters
            waiting = self.given.get(key, [])
            if number < len(waiting) and _alike(waiting[number], (args, kwargs)):
                self.shared_inputs[0] += 1
                with tape.paused():
                    return _replaced((args, kwargs), waiting[number])
            self.shared_inputs[1] += 1
            return None

        return feed


class _Instead(torch.autograd.Function):
    """Another value in place of a tensor, whose gradient goes where the tensor came from."""

    @staticmethod
    def forward(_ctx: Any, _own: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(_ctx: Any, gradient: Any) -> Any:
        return gradient, None


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _tensors(call: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(call) if isinstance(leaf, Tensor)]


def _alike(one: Any, other: Any) -> bool:
    first, second = _tensors(one), _tensors(other)
    return len(first) == len(second) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
        for a, b in zip(first, second, strict=True)
    )


def _replaced(call: tuple[Any, Any], given: tuple[Any, Any]) -> Any:
    """The call with the baseline's values; graph and structure stay the program's own."""
    values = iter(_tensors(given))

    def instead(own: Tensor) -> Tensor:
        value = next(values)
        return _Instead.apply(own, value) if own.requires_grad else value.clone()

    return tree_map_only(Tensor, instead, call)
