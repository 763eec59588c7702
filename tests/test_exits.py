"""However a hunt ends, nothing stays attached and the state is that before the step.

That no hook, patch or mode stays installed is checked after every test by the fixture in
conftest.py; here it is the training's state and memory.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import nanhunt
from nanhunt.errors import (
    HuntClosedError,
    MetaDeviceError,
    NanhuntError,
    NoBackwardError,
    NoOptimizerError,
    NotAModuleError,
    StepFunctionError,
    UsageError,
)


class Bomb(torch.autograd.Function):
    """Raises in the backward pass."""

    error: type[BaseException] = KeyboardInterrupt

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        raise Bomb.error("in backward")


def program(where: str, error: type[BaseException], at: int = 2) -> tuple[nn.Module, Any, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    x = torch.randn(6, 4)
    count = {"steps": -1}

    def step() -> torch.Tensor:
        count["steps"] += 1
        now = count["steps"] == at
        optimizer.zero_grad()
        y = model(x)
        if now and where == "forward":
            raise error("in forward")
        if now and where == "backward":
            Bomb.error = error
            y = Bomb.apply(y)
        loss = y.pow(2).mean()
        loss.backward()
        optimizer.step()
        if now and where == "after the update":
            raise error("after the update")
        return loss

    return model, step, optimizer


def bits(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    state = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    return [t.detach().clone() for t in (*model.parameters(), *model.buffers(), *state)]


PLACES = ["forward", "backward", "after the update"]


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit, GeneratorExit])
def test_an_exit_inside_a_step_undoes_that_step(where: str, error: type[BaseException]) -> None:
    model, step, optimizer = program(where, error)
    for _ in range(2):
        step()
    expected = bits(model, optimizer)

    model, step, optimizer = program(where, error)
    if error is KeyboardInterrupt:
        assert nanhunt.hunt(model, step, steps=9).interrupted
    else:
        with pytest.raises(error):
            nanhunt.hunt(model, step, steps=9)
        assert nanhunt.last_report() is not None
    assert all(map(torch.equal, bits(model, optimizer), expected))


@pytest.mark.parametrize("ending", ["healthy", "finding", "exception"])
def test_no_memory_is_held_after_a_hunt(ending: str) -> None:
    model, step, optimizer = program("forward", ValueError, at=2 if ending == "exception" else 99)
    if ending == "finding":
        model[0].weight.data[0, 0] = float("nan")
    if ending == "exception":
        with pytest.raises(ValueError, match="in forward"):
            nanhunt.hunt(model, step, steps=4)
    else:
        report = nanhunt.hunt(model, step, steps=4)
        assert report.healthy == (ending == "healthy")
    gone = weakref.ref(model)
    del model, step, optimizer
    gc.collect()
    assert gone() is None


def test_a_closed_hunt_cannot_be_stepped() -> None:
    model, step, _ = program("nowhere", ValueError)
    hunt = nanhunt.Hunt(model, step)
    hunt.step()
    hunt.close()
    hunt.close()
    with pytest.raises(HuntClosedError, match="make a new"):
        hunt.step()


def misuse() -> dict[str, tuple[Any, Callable[..., Any], dict[str, Any], type[Exception], str]]:
    model, step, _ = program("nowhere", ValueError)
    free = nn.Linear(4, 1)
    x = torch.randn(3, 4)

    def needs_two(x: Any, y: Any) -> None: ...

    def only_forward() -> torch.Tensor:
        return model(torch.ones(6, 4)).mean()

    def no_optimizer() -> None:
        free(x).sum().backward()

    return {
        "not a module": (3, step, {}, NotAModuleError, "int"),
        "a list with a stranger": ([model, 3], step, {}, NotAModuleError, "list"),
        "no parameters": (nn.ReLU(), step, {}, NotAModuleError, "no parameters"),
        "meta": (nn.Linear(2, 2, device="meta"), step, {}, MetaDeviceError, "to_empty"),
        "not callable": (model, 3, {}, StepFunctionError, "cannot be called"),
        "arguments": (model, needs_two, {}, StepFunctionError, "no argument"),
        "arguments with data": (model, lambda: None, {"data": [1]}, StepFunctionError, "one batch"),
        "no backward": (model, only_forward, {}, NoBackwardError, "never called backward"),
        "no optimizer": (free, no_optimizer, {}, NoOptimizerError, "optimizer=()"),
        "optimizer of another type": (model, step, {"optimizer": 3}, UsageError, "int"),
        "no steps": (model, step, {"steps": 0}, UsageError, "at least 1"),
    }


@pytest.mark.parametrize("name", misuse())
def test_misuse_gets_a_clear_error_and_changes_nothing(name: str) -> None:
    model, step, options, error, words = misuse()[name]
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    before = [t.detach().clone() for t in tensors if not t.is_meta]
    random = torch.get_rng_state()
    with pytest.raises(error, match=words) as caught:
        nanhunt.hunt(model, step, **options)
    assert isinstance(caught.value, NanhuntError)
    after = [t for t in tensors if not t.is_meta]
    assert all(map(torch.equal, before, after))
    assert torch.equal(torch.get_rng_state(), random)


def test_a_misspelt_option_is_refused_by_name() -> None:
    model, step, _ = program("nowhere", ValueError)
    with pytest.raises(TypeError, match="stepz"):
        nanhunt.hunt(model, step, stepz=3)
