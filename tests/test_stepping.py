"""Promises of stepping by hand: inside a step, breakpoints, back, replay, and bit-identity."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import nanhunt
from nanhunt.errors import HuntBusyError, UsageError
from tests.test_hunt import bits, same


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.body(x)))


def training(fails_at: int = 99) -> tuple[Net, torch.optim.Optimizer, Callable[[], Any], Any]:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    data = torch.randn(60, 16, 4)
    seen: list[int] = []

    def step_fn() -> torch.Tensor:
        optimizer.zero_grad()
        number = len(seen)
        seen.append(number)
        loss = model(data[number]).pow(2).mean()
        if number == fails_at:
            loss = loss * (loss - loss).log()  # culprit
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step_fn, seen


def bare(steps: int, around: Callable[[], Any] = contextlib.nullcontext) -> list[torch.Tensor]:
    model, optimizer, step_fn, _ = training()
    with around():
        for _ in range(steps):
            step_fn()
    return bits(model, optimizer)


@pytest.fixture
def hunt() -> Iterator[nanhunt.Hunt]:
    model, _, step_fn, _ = training()
    with nanhunt.Hunt(model, step_fn, back=5) as made:
        yield made


def test_into_visits_every_module_forward_and_backward_in_order(hunt: nanhunt.Hunt) -> None:
    places = []
    here = hunt.into()
    while here is not None:
        places.append((here.phase, here.path))
        here = hunt.into()
    forward = [place for place in places if place[0] != "backward"]
    assert forward[:4] == [
        ("before", ""), ("before", "body"), ("before", "body.0"), ("after", "body.0")
    ]  # fmt: skip
    assert forward[-3:] == [("before", "head"), ("after", "head"), ("after", "")]
    backward = [path for phase, path in places if phase == "backward"]
    assert backward == ["", "head", "drop", "body", "body.2", "body.1", "body.0"]
    assert hunt.position == 1


def test_over_passes_a_module_by_and_out_leaves_the_one_around(hunt: nanhunt.Hunt) -> None:
    assert str(hunt.into()) == "step 0, before the model (Net)"
    assert hunt.into().path == "body"
    here = hunt.over()
    assert (here.phase, here.path) == ("after", "body")
    assert (hunt.over().path, hunt.over().path, hunt.over().path) == ("drop", "drop", "head")
    here = hunt.out()
    assert (here.phase, here.path) == ("after", "")
    here = hunt.over()
    assert (here.phase, here.path) == ("backward", "")
    assert hunt.out() is None
    assert hunt.position == 1


def test_here_holds_the_live_tensors_and_lets_go_of_them_when_the_step_goes_on(
    hunt: nanhunt.Hunt,
) -> None:
    hunt.break_at("body.0")
    here = hunt.resume()
    assert here.module is hunt.module_tree()["body.0"]
    assert here.inputs[0][0].shape == (16, 4)
    after = hunt.over()
    assert here.module is None
    assert here.inputs is None
    assert after.output.shape == (16, 8)
    hunt.clear_breakpoints()
    backward = hunt.break_at("body.0", phase="backward")
    here = hunt.resume()
    assert here.gradient.shape == (16, 8)
    assert hunt.breakpoints == (backward,)
    assert hunt.resume() is None


@pytest.mark.parametrize(
    ("condition", "stops"),
    [
        ("nan", False), ("inf or nan", False), ("absmax > 1e4", False), ("absmax > 1e-6", True),
        ("dtype == float32", True), ("dtype == float16", False), ("complex_half", False),
        ("underflow > 10%", False), ("not nan and absmax < 1e30", True), ("zeros > 99%", False),
        ("step == 0", True), ("step > 2 and absmax > 0", False),
        (lambda here: here.tensors[0].dim() == 2, True), (lambda here: False, False),
    ],
    ids=str,
)  # fmt: skip
def test_a_condition_decides_whether_a_breakpoint_stops(
    hunt: nanhunt.Hunt, condition: Any, stops: bool
) -> None:
    hunt.break_at("body.*", condition)
    assert (hunt.resume() is not None) == stops


def test_a_condition_is_asked_of_outputs_and_in_backward_of_gradients() -> None:
    model, _, step_fn, _ = training()
    with torch.no_grad():
        model.body[0].weight[0, 0] = float("inf")
    with nanhunt.Hunt(model, step_fn) as hunt:
        hunt.break_at("Linear", "inf or nan", phase="both")
        here = hunt.resume()
        assert (here.phase, here.path) == ("after", "body.0")
        here = hunt.resume()
        assert (here.phase, here.path) == ("before", "head")
        hunt.clear_breakpoints()
        hunt.break_at("Linear", "nan", phase="backward")
        assert hunt.resume().phase == "backward"


@pytest.mark.parametrize(
    ("where", "condition", "told"),
    [
        ("boddy", None, "no module is called 'boddy'"),
        ("body", "absmx > 1", "did you mean absmax?"),
        ("body", "absmax >", "cannot be read as a condition"),
        ("body", "__import__('os')", "cannot be read as a condition"),
    ],
)
def test_a_breakpoint_that_cannot_work_is_refused(
    hunt: nanhunt.Hunt, where: str, condition: str | None, told: str
) -> None:
    with pytest.raises(UsageError, match=told.replace("?", r"\?")):
        hunt.break_at(where, condition)
    assert hunt.breakpoints == ()


def test_a_predicate_that_raises_stops_the_step_and_says_why(hunt: nanhunt.Hunt) -> None:
    point = hunt.break_at("head", lambda here: here.nothing)
    assert hunt.resume() is not None
    assert "AttributeError" in point.error


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


def test_a_bad_step_is_undone_and_named_and_a_hunt_from_there_finds_the_same() -> None:
    model, _, step_fn, _ = training(fails_at=3)
    expected = nanhunt.hunt(model, step_fn, steps=10)
    model, _, step_fn, seen = training(fails_at=3)
    with nanhunt.Hunt(model, step_fn) as hunt:
        hunt.run(10, examine=False)
        assert hunt.position == 3
        assert hunt.bad[0] == "loss"
        assert len(seen) == 3
        assert hunt.report.healthy, "nothing was examined yet"
        assert hunt.replay() == "bit_exact"
        hunt.break_at("head")
        while hunt.position < 3 or hunt.here is None:
            hunt.resume()
        hunt.back()
        hunt.clear_breakpoints()
        report = hunt.run(10)
    assert report.finding is not None
    assert expected.finding is not None
    assert report.finding == expected.finding


def test_an_exception_of_the_step_is_raised_as_theirs_and_the_hunt_lives_on() -> None:
    model, optimizer, inner, _ = training()
    broken = [True]

    def step_fn() -> None:
        inner()
        if broken[0]:
            raise KeyError("mine")

    before = bits(model, optimizer)
    with nanhunt.Hunt(model, step_fn, complex_half=False) as hunt:
        hunt.into()
        with pytest.raises(KeyError, match="mine"):
            hunt.resume()
        assert same(bits(model, optimizer)[: len(before)], before)
        broken[0] = False
        hunt.into()
        hunt.resume()
        assert hunt.position == 1


def test_a_step_that_catches_everything_is_undone_all_the_same() -> None:
    model, optimizer, inner, _ = training()

    def step_fn() -> None:
        optimizer.zero_grad()
        with contextlib.suppress(BaseException):  # as a bare `except:` in somebody's code
            inner()

    before = bits(model, optimizer)
    with nanhunt.Hunt(model, step_fn, complex_half=False) as hunt:
        hunt.into()
        hunt.back()
        assert hunt.position == 0
        assert same(bits(model, optimizer)[: len(before)], before)


def test_closing_a_paused_hunt_undoes_the_step_and_ends_the_thread() -> None:
    model, optimizer, step_fn, _ = training()
    before = bits(model, optimizer)
    with nanhunt.Hunt(model, step_fn) as hunt:
        hunt.into()
        assert any(t.name == "nanhunt-step" for t in threading.enumerate())
    assert not any(t.name == "nanhunt-step" for t in threading.enumerate())
    assert same(bits(model, optimizer)[: len(before)], before)


def test_halt_ends_a_run_of_another_thread_after_its_step(hunt: nanhunt.Hunt) -> None:
    def halting(here: Any) -> bool:
        if here.step == 2:
            hunt.halt()
        return False

    hunt.break_at("head", halting)
    assert hunt.run(20).steps_run == 3
    assert hunt.run(2).steps_run == 5, "the next run is not ended by it"


def test_a_cell_that_trains_while_a_step_is_paused_does_not_mix_with_it() -> None:
    model, optimizer, step_fn, _ = training()
    with nanhunt.Hunt(model, step_fn, complex_half=False) as hunt:
        hunt.break_at("head")
        hunt.resume()
        other, _, other_step, _ = training()
        other_step()
        assert hunt.here.path == "head"
        with pytest.raises(HuntBusyError, match="another hunt stands inside a step"):
            nanhunt.hunt(other, other_step)
        hunt.clear_breakpoints()
        hunt.resume()
        assert hunt._sentinel.facts.backwards == 1
    assert same(bits(model, optimizer), bare(1))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_recomputed_module_is_stopped_at_in_backward_and_says_so(reentrant: bool) -> None:
    class Checkpointed(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(checkpoint(self.body, x, use_reentrant=reentrant))

    torch.manual_seed(0)
    model = Checkpointed()
    model.body[2] = nn.ReLU()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(5, 4, requires_grad=True)

    def step_fn() -> None:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()

    with nanhunt.Hunt(model, step_fn) as hunt:
        hunt.statistics = True
        calls = []
        here = hunt.into()
        while here is not None:
            calls.append((here.path, here.phase, here.call))
            here = hunt.into()
    assert ("body.0", "before", "recompute") in calls
    assert hunt.position == 1


def test_a_compiled_model_is_stepped_through_uncompiled() -> None:
    model, optimizer, _, _ = training()
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(6, 4)

    def step_fn() -> None:
        optimizer.zero_grad()
        compiled(x).sum().backward()
        optimizer.step()

    with nanhunt.Hunt(compiled, step_fn) as hunt:
        hunt.step()
        hunt.break_at("body.0")
        assert hunt.resume().path == "body.0"
        hunt.clear_breakpoints()
        hunt.resume()
        hunt.step()
        assert hunt.position == 3
