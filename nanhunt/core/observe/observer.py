"""Op-level observation of one step: which operations put NaN and Inf where, and from what.

A `TorchDispatchMode` sees every aten operation below autograd, forward and backward. Only
operations with a bad output are kept. Autograd numbers its nodes in order of creation; the
number at the time of a forward operation links it with the node that later runs its backward.
"""

from __future__ import annotations

import contextlib
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from nanhunt.core.observe import op_table
from nanhunt.core.observe.closeup import Closeup
from nanhunt.core.observe.op_arguments import (
    Argument,
    flat,
    has_bad_scalar,
    is_view,
    named_tensors,
    training_flag,
    written_positions,
)
from nanhunt.core.observe.op_records import Birth, Context, ForwardOp, OpRecord, Value
from nanhunt.core.program.module_stack import RECOMPUTE, ModuleStack
from nanhunt.core.program.source_lines import Stack
from nanhunt.core.program.target import Target
from nanhunt.core.program.torch_calls import Call, RunningCallMode
from nanhunt.core.tensors.stats import count_bad, tensor_stats
from nanhunt.core.tensors.storage import Region, Storages
from nanhunt.torch_private import (
    TorchDispatchMode,
    current_node,
    dispatch_modes_off,
    function_modes_off,
    local_part,
    next_sequence_number,
    sequence_number,
)

_T = TypeVar("_T")
_NOTHING = contextlib.nullcontext()
_MAX_BIRTHS = 32
_DECIDES = op_table.PREDICATES | op_table.PREDICATE_PARTS | op_table.COMPARISONS
_REINTERPRETS = frozenset({"aten.as_strided", "aten.view.dtype", "aten.set_"})


class Activity:
    """What the step is doing now; the sentinel's patches keep it up to date."""

    def __init__(self) -> None:
        self.backward = 0
        self.optimizer = 0

    def in_backward(self) -> bool:
        """Whether the autograd engine is running."""
        return self.backward > 0 or current_node() is not None


class _Running(NamedTuple):
    """The operation that runs now."""

    number: int
    op: str
    func: Any
    args: Any
    kwargs: Any
    named: list[Argument]
    inputs: list[Value]
    stack: Stack | None


class Observer(TorchDispatchMode):
    """Watches every operation between `__enter__` and `__exit__`.

    Args:
        target: the model, for names.
        activity: what the step is doing.
        calls: whether to note the calls above autograd as well. That is a function mode, for
            which some modules of torch leave out their fused path.
        closeup: an operation to be described in full, if any.
    """

    def __init__(
        self,
        target: Target,
        activity: Activity,
        calls: bool = False,
        closeup: Closeup | None = None,
    ) -> None:
        super().__init__()
        self.activity = activity
        self.storages = Storages()
        self.modules = ModuleStack(target, activity.in_backward, self.quietly, keep_frames=True)
        self.count = 0
        self.records: list[OpRecord] = []
        self.swallowed: list[OpRecord] = []
        self.decisions: list[OpRecord] = []
        self.births: list[Birth] = []
        self.failed: OpRecord | None = None
        self.clears: list[tuple[int, Region]] = []
        self.parts: dict[str, Stack] = {}
        self.hides_gradients = False
        self.hid_bad = False
        self._target = target
        self._closeup = closeup
        self._calls = RunningCallMode(self._module_now) if calls else None
        self._tainted: set[int] = set()
        self._forward: dict[int, ForwardOp] = {}
        self._writes: dict[int, int] = defaultdict(int)
        self._known: dict[Any, tuple[int, int, int]] = {}
        self._codes: dict[int, OpRecord] = {}  # by the memory of the code it has returned
        self._quiet = False
        self._backwards = 0  # operations of backward passes so far
        self._gradients: set[int] = set()  # memory of the parameters' gradients
        self._gradients_of, self._asked = -1, 0

    def __enter__(self) -> Observer:
        self.modules.__enter__()
        if self._calls is not None:
            self._calls.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        if self._calls is not None:
            self._calls.__exit__(*exc)
        self.modules.__exit__(*exc)

    def quietly(self, function: Callable[[], _T]) -> _T:
        """Calls a function of nanhunt's without observing what it does; nobody else's modes do."""
        with function_modes_off(), dispatch_modes_off():
            return self.ignoring(function)

    def ignoring(self, function: Callable[[], _T]) -> _T:
        """Calls a function without observing what it does; other modes stay on."""
        before, self._quiet = self._quiet, True
        try:
            return function()
        finally:
            self._quiet = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._quiet:
            return func(*args, **kwargs)
        # Function modes stay on inside `backward()`: they must not see what is computed here.
        with function_modes_off():
            running = self._about_to_run(func, args, kwargs)
        try:
            with self._calls.let_alone() if self._calls is not None else _NOTHING:
                out = func(*args, **kwargs)
        except Exception:  # the operation's own: noted if its inputs were bad, and goes on
            if any(value.bad for value in running.inputs):
                self.failed = self._record(running, [])
            elif op_table.packet(running.op) in op_table.RAISES_FOR_CODES:
                keys = (value.region.key for value in running.inputs if value.region is not None)
                self.failed = next(filter(None, map(self._codes.get, keys)), None)
            raise
        with function_modes_off():
            self._has_run(running, out)
        return out

    def _about_to_run(self, func: Any, args: Any, kwargs: Any) -> _Running:
        index, op = self.count, str(func)
        self.count += 1
        self._backwards += self.activity.in_backward()
        named = list(named_tensors(func, args, kwargs))
        inputs = [self._value(a.tensor, a.name, a.item, a.position) for a in named]
        stack = self._register_forward(index, op)
        closeup = self._closeup
        if closeup is not None:
            if closeup.frames_at == index:
                closeup.frames = tuple(self.modules.frames)
            closeup.before(index, func, args, kwargs, self._call_now())
        return _Running(index, op, func, args, kwargs, named, inputs, stack)

    def _has_run(self, running: _Running, out: Any) -> None:
        results = self._outputs(running, out)
        if self._closeup is not None:
            place = (self.modules.place, running.stack, self._call_now())
            index, _, func, args, kwargs, named, inputs, _ = running
            self._closeup.after(index, func, args, kwargs, named, inputs, results, out, place)
        self._keep(running, results)

    def _call_now(self) -> Call | None:
        return self._calls.current if self._calls is not None else None

    def _module_now(self) -> str | None:
        place = self.modules.place
        return place.module if place else None

    def _keep(self, running: _Running, results: list[tuple[Tensor, Value]]) -> None:
        outputs = [value for _, value in results]
        op, packet = running.op, op_table.packet(running.op)
        bad_in = any(value.bad for value in running.inputs)
        if packet in op_table.HIDES and self._reads_gradients(running.inputs):
            self.hides_gradients = True
            self.hid_bad |= bad_in
        self._note_writes(running.number, results)
        if any(value.bad for value in outputs):
            self.records.append(self._record(running, outputs))
        elif bad_in and _swallows(op, running.inputs, running.args):
            self.swallowed.append(self._record(running, outputs))
        if bad_in and packet in op_table.RETURNS_CODES:
            codes = (v.region for t, v in results if not t.is_floating_point() and v.region)
            record = self._record(running, outputs)
            self._codes.update((region.key, record) for region in codes)
        if bad_in and packet in _DECIDES:
            self.decisions.append(self._record(running, outputs))
        if len(self.births) < _MAX_BIRTHS and _is_birth(running.named, results):
            record = self._record(running, outputs)
            if record.context.phase == "forward":
                self.births.append(
                    Birth(
                        record,
                        tuple(tensor_stats(a.tensor, a.name) for a in running.named),
                        tuple(tensor_stats(t, value.name) for t, value in results),
                        tuple(self.modules.frames),
                    )
                )

    def _note_writes(self, index: int, results: list[tuple[Tensor, Value]]) -> None:
        """Notes memory that became bad, and bad memory that was overwritten as a whole."""
        for tensor, value in results:
            if value.region is None:
                continue
            if value.bad:
                self._tainted.add(value.region.key)
            elif (
                value.argument >= 0
                and value.region.key in self._tainted
                and value.region.end - value.region.start == tensor.numel() * tensor.itemsize
            ):
                self.clears.append((index, value.region))

    def _register_forward(self, index: int, op: str) -> Stack | None:
        """Links the autograd node just created with this operation."""
        node = current_node()
        if self.activity.in_backward() and not torch.is_grad_enabled():
            return None
        stack = Stack(sys._getframe(2))
        if stack.part:
            self.parts.setdefault(stack.part, stack)  # in the order in which they came
        number = next_sequence_number() - 1
        forward = ForwardOp(index, op, self.modules.place, stack, self._call_now())
        if node is not None and not stack.recompute:
            # A backward that is itself differentiated: its nodes belong to the forward line.
            forward = self._forward.get(sequence_number(node), forward)
        self._forward.setdefault(number, forward)
        return stack

    def _record(self, running: _Running, outputs: list[Value]) -> OpRecord:
        packet = op_table.packet(running.op)
        return OpRecord(
            index=running.number,
            op=running.op,
            inputs=tuple(value for value in running.inputs if value.bad),
            outputs=tuple(value for value in outputs if value.bad),
            context=self._context(running.stack or Stack(sys._getframe(2)), running.inputs),
            constant=packet in op_table.WRITES_CONSTANTS or has_bad_scalar(running.args),
            training=training_flag(packet, running.args),
            of_zero=packet == "aten.pow" and self.quietly(lambda: _has_zero(running.args[0])),
            negates=packet in op_table.NEGATES
            or (packet in op_table.SCALES and not isinstance(running.args[1], Tensor)),
        )

    def _context(self, stack: Stack, inputs: list[Value]) -> Context:
        node = current_node()
        place = self.modules.place
        call = self._call_now()
        forward = None
        if stack.recompute:
            phase = "backward"
            if place is not None:
                place = place._replace(call=RECOMPUTE)
        elif self.activity.in_backward():
            phase = "backward"
            forward = self._forward.get(sequence_number(node)) if node is not None else None
            place = forward.place if forward else place
            call = forward.call if forward else call
        elif self.activity.optimizer or stack.update or self._reads_gradients(inputs):
            phase = "optimizer"
        else:
            phase = "forward"
        return Context(phase, place, node.name() if node else None, stack, forward, call)

    def _reads_gradients(self, inputs: list[Value]) -> bool:
        """Whether an operation uses a parameter's gradient, as an update by hand does.

        Which gradients there are is asked after each backward pass, and then now and again, as a
        program may hang in its own: each time would take many bad operations times parameters.
        """
        self._asked += 1
        if self._asked > len(self._target.parameters) // 8 or self._gradients_of != self._backwards:
            grads = [p.grad for p in self._target.parameters.values() if p.grad is not None]
            regions = [self.storages.region(grad) for grad in grads]
            self._gradients = {region.key for region in regions if region is not None}
            self._gradients_of, self._asked = self._backwards, 0
        keys = self._gradients
        return any(value.region is not None and value.region.key in keys for value in inputs)

    def _outputs(self, running: _Running, out: Any) -> list[tuple[Tensor, Value]]:
        func, packet = running.func, op_table.packet(running.op)
        written = written_positions(func)
        results: list[tuple[Tensor, str, int | None, int]] = []
        seen = set()
        for name, item, position, tensor in running.named:
            if position in written:
                seen.add(id(tensor))
                results.append((tensor, f"{name} after", item, position))
                region = self.storages.region(tensor)
                if region:
                    self._writes[region.key] += 1
        for number, (item, tensor) in enumerate(flat(out)):
            if id(tensor) not in seen:
                results.append((tensor, f"output {number}" if number else "output", item, -1))
        clean_view = (
            is_view(func)
            and not any(value.bad for value in running.inputs)
            and packet not in _REINTERPRETS
            and running.op not in _REINTERPRETS
        )
        return [
            (tensor, self._value(tensor, name, item, position, clean_view))
            for tensor, name, item, position in results
        ]

    def _value(
        self, tensor: Tensor, name: str, item: int | None, position: int, clean: bool = False
    ) -> Value:
        region = self.storages.region(tensor)
        if region is None or not (tensor.is_floating_point() or tensor.is_complex()):
            return Value(name, item, region, 0, 0, 0, 0, position)
        tensor = local_part(tensor)
        writes = self._writes[region.key]
        strides = tensor.stride() if tensor.layout == torch.strided else ()
        key = (region, writes, tensor.dtype, tuple(tensor.shape), strides)
        counts = self._known.get(key)
        if counts is None:
            counts = (0, 0, 0) if clean else count_bad(tensor)
            self._known[key] = counts
        return Value(name, item, region, *counts, tensor.numel(), position)


def _is_birth(named: list[Argument], results: list[tuple[Tensor, Value]]) -> bool:
    if not any(tensor.dtype == torch.complex32 for tensor, _ in results):
        return False
    return not any(a.tensor.dtype == torch.complex32 for a in named)


def _has_zero(base: Any) -> bool:
    return bool((base == 0).any()) if isinstance(base, Tensor) else base == 0


def _swallows(op: str, inputs: list[Value], args: Any) -> bool:
    packet = op_table.packet(op)
    if packet == "aten.pow":  # Inf ** -1 is 0
        exponent = args[1]
        negative = isinstance(exponent, int | float) and exponent < 0
        return negative and any(value.name == "self" and value.inf for value in inputs)
    if packet in ("aten.div", "aten.div_"):
        return any(value.name == "other" and value.inf for value in inputs)
    return packet in op_table.SWALLOWS_OVERFLOW and any(value.inf for value in inputs)
