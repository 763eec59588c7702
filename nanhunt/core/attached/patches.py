"""What nanhunt puts in the place of a function or stream of others, and how that comes off again.

A place is an attribute of a module or class, such as `torch.autograd.backward`. Others patch the
same places, before a hunt, during and after it, and take theirs off in any order. So:

- What comes off is what is still ours. A patch that somebody put over ours stays and works, and
  ours beneath it only passes calls on; where somebody has put the original back there is nothing
  left to do.
- Ours comes off from under another of ours as well: what is put back is never a patch of ours
  that has been taken off. Should somebody put such a one back later, it goes at its next call.
- Calls from other threads than the one that put a patch up are passed on: a cell may run while a
  step is paused. The threads of a backward pass belong to the step.
"""

from __future__ import annotations

import functools
import inspect
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import torch

from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.torch_private import compiler_loaded, current_node

# The function through which a patched function is called; who walks the stack knows it by name.
PATCHED_CALL = "patched_call"

Remove = Callable[[], None]

_MISSING: Any = object()  # in the place of a value: the attribute is inherited
_lock = threading.RLock()


class _Patch:
    """One value in the place of another.

    Attributes:
        beneath: what the owner's own dict held, or `_MISSING`.
        up: whether it has not been taken off.
        watched: what a call of ours goes to while it is up; None for what is no function.
    """

    def __init__(self, owner: Any, name: str) -> None:
        self._owner, self._name = owner, name
        self.beneath = _standing(vars(owner).get(name, _MISSING))
        self.up = False
        self.watched: Callable[..., Any] | None = None
        self._value: weakref.ref[Any] = weakref.ref(self)

    @property
    def original(self) -> Any:
        """What is beneath, looked up in the bases where it is inherited."""
        if self.beneath is not _MISSING:
            return self.beneath
        return inspect.getattr_static(self._owner, self._name)

    def put_up(self, value: Any) -> None:
        """Puts a value there."""
        key = id(value)
        self._value = weakref.ref(value, lambda _: _patches.pop(key, None))
        _patches[key] = self
        self.up = True
        setattr(self._owner, self._name, value)

    def take_off(self) -> None:
        """Takes it off, or out of use where it cannot be taken off."""
        with uninterrupted(), _lock:
            self.up, self.watched = False, None  # who still holds the value holds nothing more
            if not self.is_there():
                return
            beneath = _standing(self.beneath)
            if beneath is _MISSING:
                delattr(self._owner, self._name)
            else:
                setattr(self._owner, self._name, beneath)

    def is_there(self) -> bool:
        """Whether the place holds our value."""
        return self.holds(vars(self._owner).get(self._name, _MISSING))

    def holds(self, value: Any) -> bool:
        """Whether a value is ours."""
        return self._value() is value


# By the identity of their values, as long as those live.
_patches: dict[int, _Patch] = {}


def _standing(value: Any) -> Any:
    """A value, or what lies beneath it where it is a patch of ours that has been taken off."""
    patch = _patches.get(id(value))
    while patch is not None and patch.holds(value) and not patch.up:
        value = patch.beneath
        patch = _patches.get(id(value))
    return value


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> Remove:
    """Puts `make(value)` in the place of an attribute's value; returns what takes it off again.

    Args:
        owner: a module or a class.
        name: of its attribute.
        make: makes what is to be there from what is there.
    """
    with uninterrupted(), _lock:
        patch = _Patch(owner, name)
        patch.put_up(make(patch.original))
    return patch.take_off


def patch(
    owner: Any, name: str, make: Callable[[Any], Callable[..., Any]], *, every_thread: bool = False
) -> Remove:
    """Puts `make(function)` in the place of a function; returns what takes it off again.

    Args:
        owner: a module or a class.
        name: of its function or method.
        make: makes what is to be called from what is called now. Both take `self` first where
            the owner is a class.
        every_thread: whether calls from all threads are meant, and not those of the step alone.
    """
    thread = threading.get_ident()
    with uninterrupted(), _lock:
        placed = _Patch(owner, name)
        original = _taking_self(owner, placed.original)
        placed.watched = make(original)

        @functools.wraps(placed.original)
        def patched_call(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():  # dynamo would trace what watches, and warn
                return original(*args, **kwargs)
            watched = placed.watched
            if watched is None:
                clear(owner, name)
            elif every_thread or not is_elsewhere(thread):
                return watched(*args, **kwargs)
            return original(*args, **kwargs)

        _name_after_place(patched_call, owner, name)
        placed.put_up(patched_call)
    return placed.take_off


def clear(owner: Any, name: str) -> None:
    """Takes a patch of ours off that somebody has put back after its time."""
    patch = _patches.get(id(vars(owner).get(name, _MISSING)))
    if patch is not None and not patch.up:
        patch.take_off()


def unpatched(owner: Any, name: str) -> Any:
    """What a place would hold without the patches of ours that lie on top."""
    value = vars(owner)[name]
    patch = _patches.get(id(value))
    while patch is not None and patch.holds(value):
        value = patch.original
        patch = _patches.get(id(value))
    return value


def is_elsewhere(thread: int) -> bool:
    """Whether this thread is neither that one nor of a backward pass."""
    return threading.get_ident() != thread and current_node() is None


def uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """What compiled code calls as it is, where dynamo would trace into it and warn."""
    if not compiler_loaded():
        return function
    return torch.compiler.disable(function)  # type: ignore[no-any-return]


def _taking_self(owner: Any, function: Any) -> Callable[..., Any]:
    """What can be called with `self` first, whatever stands in a class in the place of a method."""
    if not isinstance(owner, type) or isinstance(function, types.FunctionType):
        return function  # type: ignore[no-any-return]
    bind = getattr(type(function), "__get__", None)
    if bind is None:  # a callable object, such as a mock, is not given `self`
        return lambda _self, *args, **kwargs: function(*args, **kwargs)
    return lambda self, *args, **kwargs: bind(function, self, type(self))(*args, **kwargs)


def _name_after_place(function: Any, owner: Any, name: str) -> None:
    """Functions are pickled by the name of where they are found: that is here now.

    A method is pickled by its `__name__`, which stays the original's.
    """
    if isinstance(owner, type):
        function.__module__ = owner.__module__
        function.__qualname__ = f"{owner.__qualname__}.{name}"
    else:
        function.__module__, function.__qualname__ = owner.__name__, name
