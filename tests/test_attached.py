"""A patch of ours takes off what is still ours, whoever else patches the same place."""

from __future__ import annotations

import ast
import gc
import inspect
import io
import itertools
import pickle
import signal
import sys
import threading
import types
import weakref
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from test_torch_private import Names
from torch import nn

import nanhunt
from nanhunt.core.attached.patches import clear, patch, replace, unpatched
from nanhunt.core.program.printed import printed_to

Remove = Callable[[], None]


class Base:
    def told(self) -> list[str]:
        """Says who was called."""
        return ["original"]


class Heir(Base):
    pass


def function() -> list[str]:
    """Says who was called."""
    return ["original"]


def place(kind: str) -> tuple[Any, str, Callable[[], list[str]]]:
    """An owner, the name of what can be patched there, and a call of it."""
    if kind == "module":
        owner = types.ModuleType("owner")
        owner.told = function  # type: ignore[attr-defined]
        return owner, "told", lambda: owner.told()
    owner = type("Copy", (Base,), dict(vars(Base))) if kind == "class" else type("H", (Base,), {})
    return owner, "told", lambda: owner().told()


PLACES = ["module", "class", "inherited"]


def saying(word: str) -> Callable[[Any], Any]:
    """Makes a function that adds a word to what the one beneath says."""
    return lambda original: lambda *args: [word, *original(*args)]


class Foreign:
    """Somebody's patch, made as most people make one."""

    def __init__(self, owner: Any, name: str, word: str = "foreign") -> None:
        self.owner, self.name = owner, name
        self.before = getattr(owner, name)
        setattr(owner, name, lambda *args: [word, *self.before(*args)])

    def remove(self) -> None:
        setattr(self.owner, self.name, self.before)


@pytest.fixture(params=PLACES)
def at(request: pytest.FixtureRequest) -> tuple[Any, str, Callable[[], list[str]]]:
    return place(request.param)


# -- alone ------------------------------------------------------------------------------------


def test_a_patch_is_called_and_leaves_the_owner_as_it_was(at: Any) -> None:
    owner, name, call = at
    before = dict(vars(owner))
    remove = patch(owner, name, saying("ours"))
    assert call() == ["ours", "original"]
    remove()
    assert dict(vars(owner)) == before
    assert call() == ["original"]
    remove()
    assert dict(vars(owner)) == before


def test_a_patch_looks_like_what_it_stands_for() -> None:
    owner, name, _ = place("class")
    remove = patch(owner, name, saying("ours"))
    assert owner.told.__doc__ == Base.told.__doc__
    assert owner.told.__name__ == "told"
    assert inspect.signature(owner.told) == inspect.signature(Base.told)
    remove()


def test_several_of_ours_come_off_in_any_order(at: Any) -> None:
    owner, name, call = at
    before = dict(vars(owner))
    for order in itertools.permutations("abc"):
        removes = {word: patch(owner, name, saying(word)) for word in "abc"}
        left = ["c", "b", "a"]
        for word in order:
            assert call() == [*left, "original"]
            removes[word]()
            left.remove(word)
        assert dict(vars(owner)) == before


def test_what_is_left_of_a_patch_holds_nothing() -> None:
    owner, name, _ = place("class")

    class Step:
        pass

    def beginning() -> tuple[Remove, weakref.ref[Step]]:
        step = Step()
        made = patch(owner, name, lambda original: lambda *_: [step, *original()])
        return made, weakref.ref(step)

    remove, gone = beginning()
    Foreign(owner, name)
    remove()
    gc.collect()
    assert gone() is None


def test_a_patch_that_cannot_be_made_is_not_put_up() -> None:
    owner, name, call = place("module")
    with pytest.raises(ZeroDivisionError):
        patch(owner, name, lambda _: 1 // 0)
    assert call() == ["original"]
    with pytest.raises(AttributeError):
        patch(owner, "absent", saying("ours"))
    assert not hasattr(owner, "absent")


def test_an_exception_goes_through_unchanged() -> None:
    owner, name, call = place("module")

    def raises(_: Any) -> Any:
        def inner() -> None:
            raise KeyError("theirs")

        return inner

    remove = patch(owner, name, raises)
    with pytest.raises(KeyError, match="theirs"):
        call()
    remove()


# -- beside somebody else's -------------------------------------------------------------------


def test_a_patch_made_before_ours_stays(at: Any) -> None:
    owner, name, call = at
    foreign = Foreign(owner, name)
    remove = patch(owner, name, saying("ours"))
    assert call() == ["ours", "foreign", "original"]
    remove()
    assert call() == ["foreign", "original"]
    foreign.remove()
    assert call() == ["original"]


def test_a_patch_made_over_ours_stays_and_ours_beneath_only_passes_on(at: Any) -> None:
    owner, name, call = at
    remove = patch(owner, name, saying("ours"))
    foreign = Foreign(owner, name)
    assert call() == ["foreign", "ours", "original"]
    remove()
    assert call() == ["foreign", "original"]
    again = patch(owner, name, saying("again"))
    assert call() == ["again", "foreign", "original"]
    again()
    foreign.remove()
    assert call() == ["original"]


@pytest.mark.parametrize("by", ["a call", "another patch of ours", "clear"])
def test_ours_that_somebody_puts_back_after_its_time_goes(at: Any, by: str) -> None:
    owner, name, call = at
    before = dict(vars(owner))
    remove = patch(owner, name, saying("ours"))
    foreign = Foreign(owner, name)
    remove()
    foreign.remove()
    if by == "a call":
        assert call() == ["original"]
    elif by == "clear":
        clear(owner, name)
    else:
        patch(owner, name, saying("again"))()
    assert dict(vars(owner)) == before


def test_a_patch_taken_off_from_beneath_ours_takes_ours_along(at: Any) -> None:
    owner, name, call = at
    foreign = Foreign(owner, name)
    remove = patch(owner, name, saying("ours"))
    foreign.remove()
    assert call() == ["original"]
    before = dict(vars(owner))
    remove()
    assert dict(vars(owner)) == before


def test_ours_around_and_beneath_somebody_elses_come_off_in_any_order(at: Any) -> None:
    owner, name, call = at
    for first in (0, 1):
        removes = [patch(owner, name, saying("beneath"))]
        foreign = Foreign(owner, name)
        removes.append(patch(owner, name, saying("around")))
        assert call() == ["around", "foreign", "beneath", "original"]
        removes.pop(first)()
        assert "foreign" in call()
        removes.pop()()
        assert call() == ["foreign", "original"]
        foreign.remove()
        assert call() == ["original"]


@pytest.mark.parametrize(
    "stands_for",
    [
        mock.Mock(return_value=["foreign"]),
        partialmethod(lambda _self, word: [word], "foreign"),
    ],
    ids=["mock", "partialmethod"],
)
def test_what_others_put_in_the_place_of_a_method_is_called_as_ever(stands_for: Any) -> None:
    owner, name, call = place("class")
    setattr(owner, name, stands_for)
    assert call() == ["foreign"]
    remove = patch(owner, name, saying("ours"))
    assert call() == ["ours", "foreign"]
    remove()
    assert vars(owner)[name] is stands_for


def test_what_would_stand_without_ours_can_be_asked(at: Any) -> None:
    owner, name, _ = at
    Foreign(owner, name)
    foreign = vars(owner)[name]
    removes = [patch(owner, name, saying(word)) for word in "ab"]
    assert unpatched(owner, name) is foreign
    for remove in removes:
        remove()
    assert unpatched(owner, name) is foreign


# -- threads and interrupts -------------------------------------------------------------------


def in_a_thread(call: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


def test_other_threads_call_the_original(at: Any) -> None:
    owner, name, call = at
    remove = patch(owner, name, saying("ours"))
    assert in_a_thread(call) == ["original"]
    assert call() == ["ours", "original"]
    remove()
    remove = patch(owner, name, saying("ours"), every_thread=True)
    assert in_a_thread(call) == ["ours", "original"]
    remove()


def test_a_patch_can_be_taken_off_in_another_thread(at: Any) -> None:
    owner, name, _ = at
    before = dict(vars(owner))
    remove = patch(owner, name, saying("ours"))
    in_a_thread(remove)
    assert dict(vars(owner)) == before


def test_threads_of_a_backward_pass_belong_to_the_step() -> None:
    owner, name, call = place("module")
    remove = patch(owner, name, saying("ours"))
    heard: list[list[str]] = []
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda grad: heard.append(call()))
    # The engine runs CPU nodes in the thread that calls it; a hook there is a backward pass's.
    in_a_thread(lambda: y.sum().backward())
    assert heard == [["ours", "original"]]
    remove()


def test_an_interrupt_waits_until_a_patch_is_up_and_until_it_is_off() -> None:
    class Interrupting(types.ModuleType):
        interrupts = True

        def __setattr__(self, key: str, value: Any) -> None:
            if self.interrupts:
                signal.raise_signal(signal.SIGINT)
            super().__setattr__(key, value)

    owner = Interrupting("owner")
    vars(owner)["told"] = function
    with pytest.raises(KeyboardInterrupt):
        patch(owner, "told", saying("ours"))
    assert owner.told() == ["ours", "original"]
    vars(owner)["told"] = function

    type(owner).interrupts = False
    remove = patch(owner, "told", saying("ours"))
    type(owner).interrupts = True
    with pytest.raises(KeyboardInterrupt):
        remove()
    assert owner.told() == ["original"]


# -- pickling ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (torch, "save"),
        (torch.autograd, "backward"),
        (torch.amp.GradScaler, "step"),
        (nn.Module, "__call__"),
        (Heir, "told"),
    ],
    ids=["function", "package", "method", "special method", "inherited method"],
)
def test_what_is_patched_is_pickled_as_ever(owner: Any, name: str) -> None:
    remove = patch(owner, name, saying("ours"))
    written = pickle.dumps(getattr(owner, name))
    assert pickle.loads(written) is getattr(owner, name)
    remove()
    assert pickle.loads(written) is getattr(owner, name)


def test_a_bound_method_is_pickled_as_ever() -> None:
    model = nn.Linear(1, 1)
    before = pickle.dumps(model.__call__)
    remove = patch(nn.Module, "__call__", saying("ours"))
    assert pickle.dumps(model.__call__) == before
    remove()


# -- all places -------------------------------------------------------------------------------


def test_nothing_is_patched_by_hand() -> None:
    """Attributes of torch's modules and classes and the streams are set by `attached` alone."""
    package = Path(nanhunt.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        theirs = Names(tree).of_torch | {"sys"}
        attributes = {name for node in ast.walk(tree) for name in set_by(node)}
        set_here = (name for name in attributes if name.partition(".")[0] in theirs)
        found |= {f"{path.relative_to(package).as_posix()}: {name}" for name in set_here}
    assert found == {
        # A script's own arguments, for as long as it runs.
        "core/guard/script.py: sys.argv",
        # The default device, which a worker thread sets back to what it was.
        "torch_private.py: _device.CURRENT_DEVICE",
    }


def set_by(node: ast.AST) -> list[str]:
    """The attributes that a piece of code sets or deletes, as they are written."""
    if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
        return [ast.unparse(node)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        by_name = node.func.id in ("setattr", "delattr")
        return [f"{ast.unparse(node.args[0])}.{ast.unparse(node.args[1])}"] if by_name else []
    return []


# -- streams ----------------------------------------------------------------------------------


class Stream(io.StringIO):
    pass


def test_a_value_can_stand_in_for_another() -> None:
    owner, _, _ = place("module")
    first = owner.stream = Stream()
    remove = replace(owner, "stream", lambda _: Stream())
    assert owner.stream is not first
    remove()
    assert owner.stream is first
    remove = replace(owner, "stream", lambda _: Stream())
    theirs = owner.stream = Stream()
    remove()
    assert owner.stream is theirs


@pytest.mark.parametrize("ends_first", ["ours", "theirs"])
def test_output_goes_where_it_went_when_a_stream_was_replaced_meanwhile(
    ends_first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, theirs, ours = Stream(), Stream(), Stream()
    monkeypatch.setattr(sys, "stdout", console)
    with_ours = printed_to(ours.write)
    with_ours.__enter__()
    print("to ours")
    before, sys.stdout = sys.stdout, theirs
    print("to theirs")
    if ends_first == "ours":
        with_ours.__exit__(None, None, None)
        print("to theirs")
        sys.stdout = before
    else:
        sys.stdout = before
        print("to ours")
        with_ours.__exit__(None, None, None)
    print("to the console")
    with printed_to(ours.write):
        print("to ours")
    assert sys.stdout is console
    assert set(console.getvalue().splitlines()) == {"to the console"}
    assert set(theirs.getvalue().splitlines()) == {"to theirs"}
    assert set(ours.getvalue().splitlines()) == {"to ours"}
