"""What a step function can reach: optimizers, scalers, schedulers, iterators, counters, lists.

Closures, globals it names, defaults, bound objects and the user's own objects behind them are
searched; torch's, NumPy's and other libraries' objects are not entered.
"""

from __future__ import annotations

import dis
import functools
import gc
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from nanhunt.core.program.source_lines import is_user_code
from nanhunt.core.program.target import innermost
from nanhunt.core.snapshot.tape import TapedIterator

_MAX_OBJECTS = 5000
_MAX_ITEMS = 256
_KEPT_ITEMS = 10_000
_BUILTIN_ITERATORS: tuple[type[Any], ...] = (
    types.GeneratorType,
    type(iter([])),
    type(iter(())),
    type(iter(range(0))),
    enumerate,
    zip,
    map,
    filter,
)
_PLAIN = (int, float, complex, bool, str, bytes, tuple, type(None))


class Slot:
    """A place that holds a value: a closure's cell, a global, an attribute, a dict entry."""

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], None]) -> None:
        self.get = get
        self.put = put

    def exchange(self, value: Any, other: Any) -> None:
        """Puts `other` in the place of `value`, if that stands there."""
        if self.get() is value:
            self.put(other)


class ItemSlot(Slot):
    """A place in a list or deque, whose items may be moved while a step runs."""

    def __init__(self, items: Any, index: int) -> None:
        self._items = items

        def put(value: Any) -> None:
            items[index] = value

        super().__init__(lambda: items[index] if index < len(items) else None, put)

    def exchange(self, value: Any, other: Any) -> None:
        """Puts `other` in the place of `value`, wherever that stands now."""
        for index, item in enumerate(self._items):
            if item is value:
                self._items[index] = other
                return


class Surroundings:
    """Everything of interest within reach of a step function.

    Attributes:
        optimizers, scalers, schedulers, modules, tensors, generators, loaders: what was found;
            scalers only if they are enabled.
        iterators: slots that hold a Python iterator.
        variables: slots that hold a value the step may replace (counters).
        named: tensors in variables of the functions, by the variable's name.
        containers: lists, dicts, sets, deques and objects' own `__dict__`.
    """

    def __init__(self, step_fn: Any) -> None:
        self.optimizers: list[Optimizer] = []
        self.scalers: list[GradScaler] = []
        self.schedulers: list[Any] = []
        self.modules: list[nn.Module] = []
        self.tensors: list[Tensor] = []
        self.generators: list[Any] = []
        self.loaders: list[DataLoader[Any]] = []
        self.iterators: list[Slot] = []
        self.variables: list[Slot] = []
        self.containers: list[Any] = []
        self.named: dict[str, Tensor] = {}
        self._seen: dict[int, Any] = {}
        self._queue: deque[tuple[Any, Slot | None]] = deque([(step_fn, None)])
        while self._queue and len(self._seen) < _MAX_OBJECTS:
            self._visit(*self._queue.popleft())

    def _visit(self, value: Any, slot: Slot | None) -> None:
        if slot is not None and (
            isinstance(value, _BUILTIN_ITERATORS) or type(value).__module__ == "itertools"
        ):
            self.iterators.append(slot)
        if isinstance(value, _PLAIN) and not isinstance(value, tuple):
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, GradScaler) and not value.is_enabled():
            return  # it does nothing and has no state
        kinds: tuple[tuple[type[Any], list[Any]], ...] = (
            (GradScaler, self.scalers),
            (LRScheduler, self.schedulers),
            (nn.Module, self.modules),
            (Tensor, self.tensors),
            (torch.Generator, self.generators),
        )
        if isinstance(value, Optimizer):
            inner = innermost(value)
            if not any(known is inner for known in self.optimizers):
                self.optimizers.append(inner)
            return
        for kind, found in kinds:
            if isinstance(value, kind):
                found.append(value)
                return
        if isinstance(value, DataLoader):
            self.loaders.append(value)
        if type(value).__name__ in ("ReduceLROnPlateau", "AcceleratedScheduler"):
            self.schedulers.append(value)
        elif type(value).__module__ == "random" or type(value).__module__.startswith("numpy."):
            if hasattr(value, "getstate") or hasattr(value, "bit_generator"):
                self.generators.append(value)
        else:
            self._enter(value)

    # Not `tensors.trees`: programs hold themselves, and what matters here are the containers and
    # the places in them, which are put back, and not their leaves.
    def _enter(self, value: Any) -> None:
        if isinstance(value, functools.partial):
            self._push_all([value.func, *value.args, *value.keywords.values()])
        elif isinstance(value, types.MethodType):
            self._push_all([value.__self__, value.__func__])
        elif isinstance(value, types.FunctionType):
            if is_user_code(value.__code__.co_filename):
                self._enter_function(value)
        elif isinstance(value, dict):
            self.containers.append(value)
            for key in list(value)[:_MAX_ITEMS]:
                self._queue.append((value[key], _item_slot(value, key)))
        elif isinstance(value, list | deque):
            self.containers.append(value)
            items = list(value)[:_MAX_ITEMS]
            self._queue.extend((item, ItemSlot(value, i)) for i, item in enumerate(items))
        elif isinstance(value, set):
            self.containers.append(value)
            self._push_all(list(value)[:_MAX_ITEMS])
        elif isinstance(value, tuple):
            self._push_all(value[:_MAX_ITEMS])
        elif _is_users_object(value):
            self.containers.append(value.__dict__)
            for name in list(value.__dict__):
                self._queue.append((value.__dict__[name], _item_slot(value.__dict__, name)))
            call = type(value).__dict__.get("__call__")
            self._push_all([call])

    def _push_all(self, values: Any) -> None:
        self._queue.extend((value, None) for value in values)

    def _enter_function(self, function: types.FunctionType) -> None:
        names = function.__code__.co_freevars
        for name, cell in zip(names, function.__closure__ or (), strict=False):
            try:
                content = cell.cell_contents
            except ValueError:  # a variable that has not been assigned yet
                continue
            slot = _cell_slot(cell)
            self.variables.append(slot)
            self._queue.append((content, slot))
            if isinstance(content, Tensor):
                self.named.setdefault(name, content)
        self._push_all(function.__defaults__ or ())
        self._push_all((function.__kwdefaults__ or {}).values())
        space = function.__globals__
        for name, stored in _global_names(function.__code__):
            if name in space:
                slot = _item_slot(space, name)
                if stored:
                    self.variables.append(slot)
                if isinstance(space[name], Tensor):
                    self.named.setdefault(name, space[name])
                if not isinstance(space[name], types.ModuleType | type):
                    self._queue.append((space[name], slot))


def _global_names(code: types.CodeType) -> Iterator[tuple[str, bool]]:
    """Yields (global name, whether it is assigned) for a function and what it defines."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval, False
        elif instruction.opname in ("STORE_GLOBAL", "STORE_NAME"):
            yield instruction.argval, True
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _cell_slot(cell: Any) -> Slot:
    def put(value: Any) -> None:
        cell.cell_contents = value

    return Slot(lambda: cell.cell_contents, put)


def _item_slot(space: Any, key: Any) -> Slot:
    return Slot(lambda: space.get(key), lambda value: space.__setitem__(key, value))


def _is_users_object(value: Any) -> bool:
    if not isinstance(getattr(value, "__dict__", None), dict) or isinstance(value, type):
        return False
    kind = type(value)
    if kind is types.SimpleNamespace or kind.__module__ == "__main__":
        return True
    methods = (m for m in vars(kind).values() if isinstance(m, types.FunctionType))
    files = [m.__code__.co_filename for m in methods]
    # What a dataclass or a named class has generated was compiled from a string; and a bag of
    # settings has no methods at all.
    home = getattr(sys.modules.get(kind.__module__), "__file__", None) or "<frozen>"
    return is_user_code(files[0] if files else home) or is_user_code(home)


def optimizers_in_memory() -> list[Optimizer]:
    """Every optimizer that Python's garbage collector knows."""
    # `type(...)` instead of isinstance: proxies in memory may act on `__class__`.
    found = (thing for thing in gc.get_objects() if issubclass(type(thing), Optimizer))
    return list({id(inner): inner for inner in map(innermost, found)}.values())


def stands_for(live: Any, kept: Any) -> bool:
    """Whether a place still holds what it held, a taped iterator around it or the one in it."""
    return live is kept or _inside_tape(live) is _inside_tape(kept)


def _inside_tape(value: Any) -> Any:
    return value.inner if isinstance(value, TapedIterator) else value


class ContainerState:
    """Contents of lists, dicts, sets and deques at one moment, to be put back in place."""

    def __init__(self, containers: list[Any]) -> None:
        self._kept = [
            (thing, len(thing), type(thing)(thing) if _copyable(thing) else None)
            for thing in containers
        ]

    def restore(self) -> None:
        """Puts the contents back; of a very long list only what was appended is taken off."""
        for thing, length, copy in self._kept:
            if copy is None:
                if isinstance(thing, list):
                    del thing[length:]
            elif isinstance(thing, list | deque):
                if not (len(thing) == length and all(map(stands_for, thing, copy))):
                    thing.clear()
                    thing.extend(copy)
            else:
                _refill(thing, copy)


def _copyable(thing: Any) -> bool:
    return len(thing) <= _KEPT_ITEMS and type(thing) in (list, dict, set, deque)


def _refill(thing: Any, copy: Any) -> None:
    if isinstance(thing, dict):
        for key in [key for key in thing if key not in copy]:
            del thing[key]
        for key, value in copy.items():
            if key not in thing or not stands_for(thing[key], value):
                thing[key] = value
    else:
        thing.clear()
        thing.update(copy)
