"""Promises of stepping by hand: the training is bit-identical, also back and replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import nanhunt
from nanhunt.errors import UsageError
from tests.stepping.programs import bare, training
from tests.test_hunt import bits, same

AMBIENT: dict[str, Callable[[], Any]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": lambda: torch.device("cpu"),
    "enable_grad within no_grad": lambda: torch.no_grad(),
    "deterministic": lambda: deterministic(),
    "saved tensors hooks": lambda: torch.autograd.graph.saved_tensors_hooks(
        lambda t: t.to(torch.float16), lambda t: t.to(torch.float32)
    ),
    "flushed subnormals": lambda: flushed(),
}


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("name", AMBIENT)
def test_a_step_walked_through_is_bit_identical_under_what_surrounds_it(name: str) -> None:
    around = AMBIENT[name]

    def run(walk: bool) -> list[torch.Tensor]:
        model, optimizer, inner, _ = training()
        seen = []

        def step_fn() -> None:
            probe = torch.zeros(2) @ torch.zeros(2, 2)
            seen.append((probe.dtype, probe.device, torch.is_grad_enabled(),
                         (torch.tensor([1.2e-38]) * 0.5).item()))  # fmt: skip
            with torch.enable_grad():
                inner()

        with nanhunt.Hunt(model, step_fn) as hunt:
            hunt.statistics = True
            for _ in range(3):
                with around():  # for each step: autocast keeps cast weights until it is left
                    if not walk:
                        step_fn()
                    while walk and hunt.into() is not None:
                        pass
        return [*bits(model, optimizer), seen]  # type: ignore[list-item]

    plain, walked = run(False), run(True)
    assert plain[-1] == walked[-1]
    assert same(plain[:-1], walked[:-1])


def test_modes_of_the_users_see_the_steps_in_the_worker_as_well() -> None:
    class Counting(torch.overrides.TorchFunctionMode):
        def __init__(self) -> None:
            self.calls: list[str] = []

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kw: Any = None) -> Any:
            self.calls.append(getattr(func, "__name__", str(func)))
            return func(*args, **(kw or {}))

    def counted(walk: bool) -> list[str]:
        model, _, step_fn, _ = training()
        with nanhunt.Hunt(model, step_fn, complex_half=False) as hunt, Counting() as mode:
            if walk:
                hunt.into()
                hunt.clear_breakpoints()
                hunt.resume()
            else:
                hunt.step(examine=False)
        return [name for name in mode.calls if name in ("linear", "batch_norm", "dropout")]

    assert counted(True) == counted(False) != []


def test_breakpoints_and_statistics_leave_the_training_bit_identical(hunt: nanhunt.Hunt) -> None:
    hunt.statistics = True
    hunt.break_at("body.1", "absmax > 0", phase="both")
    while hunt.position < 6:
        hunt.resume()
    owner = hunt.module_tree()[""]
    assert same(bits(owner, hunt._optimizers[0]), bare(6))


def test_back_gives_the_bits_of_each_step_s_start() -> None:
    model, optimizer, step_fn, seen = training()
    starts = []
    with nanhunt.Hunt(model, step_fn, back=5) as hunt:
        for _ in range(5):
            starts.append(bits(model, optimizer))
            hunt.step()
        hunt.into()
        assert hunt.back() == 5, "the paused step is undone first"
        assert hunt.here is None
        for number in (4, 3, 2, 1, 0):
            assert hunt.back() == number
            assert same(bits(model, optimizer)[: len(starts[number])], starts[number])
            assert len(seen) == number, "lists in the closure are put back as well"
        with pytest.raises(UsageError, match="as far back"):
            hunt.back()
        hunt.run(6)
    assert same(bits(model, optimizer), bare(6))


def test_back_gives_the_same_batches_again() -> None:
    model, _, _, _ = training()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []

    def step_fn(batch: torch.Tensor) -> None:
        seen.append(batch)
        optimizer.zero_grad()
        model(batch).sum().backward()
        optimizer.step()

    data = list(torch.randn(9, 5, 4))
    with nanhunt.Hunt(model, step_fn, data=data, back=4) as hunt:
        for _ in range(4):
            hunt.step()
        hunt.back()
        hunt.back()
        hunt.step()
    assert seen[-1] is data[2]


def test_replay_repeats_the_last_step_to_the_bit_and_measures_it(hunt: nanhunt.Hunt) -> None:
    hunt.step()
    hunt.step()
    assert hunt.gauges.last is None
    assert hunt.replay() == "bit_exact"
    assert hunt.position == 2
    assert hunt.gauges.last.step == 1
    assert "body.0" in hunt.gauges.last.histograms["activation"]


def test_replay_of_a_healthy_step_that_was_undone_leaves_it_undone(hunt: nanhunt.Hunt) -> None:
    hunt.step()
    hunt.step()
    hunt.back()
    before = bits(hunt.module_tree()[""], hunt._optimizers[0])
    assert hunt.replay() == "bit_exact"
    assert hunt.position == 1
    assert same(bits(hunt.module_tree()[""], hunt._optimizers[0]), before)


def test_a_step_that_cannot_be_repeated_is_said_so() -> None:
    model, optimizer, _, _ = training()
    odd = iter(range(100))

    class Opaque:  # nothing here can be put back
        __slots__ = ()

        def __call__(self) -> int:
            return next(odd)

    noise = Opaque()

    def step_fn() -> None:
        optimizer.zero_grad()
        model(torch.ones(4, 4) * noise()).sum().backward()
        optimizer.step()

    with nanhunt.Hunt(model, step_fn) as hunt:
        hunt.step(examine=False)
        assert hunt.replay() == "not_reproduced"
