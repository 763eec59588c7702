"""What a step wrote is put back to the bit, whatever kind of tensor it is and whoever wrote it."""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_module
from torch.distributed.tensor import init_device_mesh as device_mesh

import nanhunt
from nanhunt.core.program.target import innermost
from nanhunt.core.snapshot.copies import Copies
from nanhunt.core.tensors.storage import memory_of

Step = Callable[[], Tensor]

KINDS: dict[str, Callable[[], Tensor]] = {
    "ordinary": lambda: torch.randn(3, 4),
    "transposed": lambda: torch.randn(4, 3).T,
    "with gaps": lambda: torch.randn(6, 8)[::2, 1::3],
    "expanded": lambda: torch.randn(3, 1).expand(3, 4),
    "one number expanded": lambda: torch.randn(()).expand(5),
    "overlapping": lambda: torch.randn(9).unfold(0, 4, 1),
    "empty": lambda: torch.randn(0, 4),
    "a number": lambda: torch.randn(()),
    "sparse": lambda: torch.eye(3).to_sparse(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [False, True])
def test_every_kind_of_tensor_is_put_back(kind: str, known: bool) -> None:
    tensor = KINDS[kind]()
    copies = Copies(check_writes=True)
    copies.take([tensor])
    if known:  # the second time the copies are there already
        copies.take([tensor])
    before = tensor.to_dense().clone()
    memory_of(tensor).mul_(0)
    copies.restore()
    assert torch.equal(tensor.to_dense(), before)


@pytest.mark.parametrize("kind", ["expanded", "one number expanded", "overlapping"])
def test_a_tensor_that_was_replaced_gets_its_values_and_shape_again(kind: str) -> None:
    tensor = KINDS[kind]()
    copies = Copies(check_writes=True)
    copies.take([tensor])
    before = tensor.clone()
    tensor.data = torch.zeros(2, 2, dtype=torch.float64)
    copies.restore()
    assert tensor.dtype == before.dtype
    assert torch.equal(tensor, before)


@pytest.mark.parametrize(
    ("kind", "numbers"), [("with gaps", 9), ("expanded", 3), ("overlapping", 9), ("empty", 0)]
)
def test_a_copy_is_no_larger_than_what_there_is(kind: str, numbers: int) -> None:
    assert memory_of(KINDS[kind]()).numel() == numbers


class Rewriting(nn.Module):
    """Writes its gain, which is trained as well, while it runs: in every step, or from one on."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.inner, self.gain = nn.Linear(4, 4), nn.Parameter(torch.ones(20_000))
        self.start, self.number, self.value = start, -1, 0.9

    def forward(self, x: Tensor) -> Tensor:
        self.number += 1
        if self.number >= self.start:
            self.gain.data[:4] = self.gain.data[:4] * self.value
        return self.inner(x) * self.gain[:4]


def rewriting(start: int, bad_at: int) -> tuple[Rewriting, Step]:
    torch.manual_seed(0)
    model = Rewriting(start)
    optimizer, count = torch.optim.Adam(model.parameters(), lr=0.01), itertools.count()

    def step() -> Tensor:
        model.value = float("inf") if next(count) == bad_at else 0.9
        optimizer.zero_grad()
        loss = model(torch.randn(8, 4)).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, step


@pytest.mark.parametrize("start", [0, 3, 5])
def test_a_parameter_that_forward_writes_is_put_back_whenever_that_began(start: int) -> None:
    expected, bare = rewriting(start, bad_at=-1)
    for _ in range(5):
        bare()
    model, step = rewriting(start, bad_at=5)
    finding = nanhunt.hunt(model, step, steps=9, progress=False, trials=False).finding
    assert finding is not None
    assert (finding.step, finding.phase) == (5, "forward")
    assert "self.value" in (finding.source.code if finding.source else "")
    pairs = zip(model.parameters(), expected.parameters(), strict=True)
    assert all(torch.equal(found, bits) for found, bits in pairs)


def test_a_healthy_model_that_writes_its_parameters_keeps_its_bits() -> None:
    expected, bare = rewriting(0, bad_at=-1)
    for _ in range(8):
        bare()
    model, step = rewriting(0, bad_at=-1)
    assert nanhunt.hunt(model, step, steps=8, progress=False).findings == ()
    pairs = zip(model.parameters(), expected.parameters(), strict=True)
    assert all(torch.equal(found, bits) for found, bits in pairs)


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


def distributed(bad_at: int) -> tuple[nn.Module, Step]:
    torch.manual_seed(0)
    model = distribute_module(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), device_mesh("cpu", (1,)))
    optimizer, count = torch.optim.Adam(model.parameters(), lr=0.01), itertools.count()
    x = torch.randn(8, 4)

    def step() -> Tensor:
        optimizer.zero_grad()
        batch = DTensor.from_local(x, device_mesh("cpu", (1,)))
        loss = model(batch).pow(2).mean()
        loss.backward()
        if next(count) == bad_at:
            with torch.no_grad():
                model[0].weight.mul_(float("nan"))
        optimizer.step()
        return loss.detach()

    return model, step


@pytest.mark.usefixtures("one_process")
def test_a_bad_distributed_parameter_is_seen_and_put_back() -> None:
    expected, bare = distributed(bad_at=-1)
    for _ in range(4):
        bare()
    model, step = distributed(bad_at=4)
    finding = nanhunt.hunt(model, step, steps=8, progress=False, trials=False).finding
    assert finding is not None
    assert finding.step == 4
    assert "parameter 0.weight" in finding.reaches
    pairs = zip(model.parameters(), expected.parameters(), strict=True)
    assert all(torch.equal(found, bits) for found, bits in pairs)


@pytest.mark.usefixtures("one_process")
def test_a_healthy_model_of_distributed_tensors_is_healthy() -> None:
    assert nanhunt.hunt(*distributed(bad_at=-1), steps=8, progress=False).findings == ()


class Lookahead(torch.optim.Optimizer):
    """Shares the groups of the optimizer in it, and keeps slow copies of its own."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__([p for group in inner.param_groups for p in group["params"]], {})
        self.inner, self.param_groups = inner, inner.param_groups
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["slow"] = parameter.detach().clone()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        for parameter, state in self.state.items():
            state["slow"].lerp_(parameter, 0.5)
            parameter.copy_(state["slow"])


def looking_ahead(bad_at: int) -> tuple[nn.Module, Lookahead, Step]:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = Lookahead(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    x, count = torch.randn(8, 4), itertools.count()

    def step() -> Tensor:
        optimizer.zero_grad()
        y = model(x)
        loss = ((y * 0).log() if next(count) == bad_at else y).mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step


def test_an_optimizer_around_another_is_put_back_with_a_state_of_its_own() -> None:
    _, expected, bare = looking_ahead(bad_at=-1)
    for _ in range(3):
        bare()
    model, optimizer, step = looking_ahead(bad_at=3)
    assert innermost(optimizer) is optimizer
    finding = nanhunt.hunt(model, step, steps=8, progress=False, trials=False).finding
    assert finding is not None
    assert (finding.step, finding.cause) == (3, "log_of_zero")
    pairs = zip(optimizer.state.values(), expected.state.values(), strict=True)
    assert all(torch.equal(found["slow"], bits["slow"]) for found, bits in pairs)


def with_a_temperature(known: bool, bad_at: int) -> tuple[nn.Module, Tensor, Any, Step]:
    """Beside the model a number is trained, by an optimizer that holds nothing of the model."""
    torch.manual_seed(0)
    model, warmth = nn.Linear(4, 1), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    other = torch.optim.Adam([warmth], lr=0.1)
    held = other if known else types.MappingProxyType({"it": other})  # a search ends there
    x, count = torch.randn(8, 4), itertools.count()

    def step() -> Tensor:
        optimizer.zero_grad()
        y = model(x)
        loss = ((y * 0).log() if next(count) == bad_at else y).mean() * warmth.exp()[0]
        loss.backward()
        optimizer.step()
        (held if isinstance(held, torch.optim.Optimizer) else held["it"]).step()
        return loss

    return model, warmth, other, step


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("bad_at", [0, 2])
def test_an_optimizer_of_tensors_outside_the_model_is_put_back(known: bool, bad_at: int) -> None:
    _, expected, others, bare = with_a_temperature(known, bad_at=-1)
    for _ in range(bad_at):
        bare()
    model, warmth, other, step = with_a_temperature(known, bad_at)
    finding = nanhunt.hunt(model, step, steps=5, progress=False, trials=False).finding
    assert finding is not None
    assert (finding.step, finding.cause) == (bad_at, "log_of_zero")
    assert torch.equal(warmth, expected)
    for found, bits in zip(other.state.values(), others.state.values(), strict=True):
        assert all(torch.equal(found[key], bits[key]) for key in bits)
    if known or bad_at:  # else there was no gradient to be kept when the step began
        assert (warmth.grad is None) == (expected.grad is None)


def lazily(bad_at: int, scaled: bool) -> tuple[nn.Module, Step]:
    """Layers that get their sizes in the first step; its gradients overflow if it is scaled."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127 if scaled else 1.0)
    x, count = torch.randn(8, 4), itertools.count()

    def step() -> Tensor:
        optimizer.zero_grad()
        y = model(x).double() if scaled else model(x)
        loss = ((y * 0).log() if next(count) == bad_at else y.pow(2)).mean() * (64 if scaled else 1)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    return model, step


def test_a_bad_first_step_of_lazy_layers_leaves_them_without_sizes() -> None:
    model, step = lazily(bad_at=0, scaled=False)
    report = nanhunt.hunt(model, step, steps=3, progress=False)
    assert report.finding is not None
    assert (report.replay, report.finding.cause) == ("bit_exact", "log_of_zero")
    assert report.finding.trials
    assert report.notes == ()
    assert all(nn.parameter.is_lazy(p) for p in model[0].parameters())
    assert isinstance(model[0], nn.LazyLinear)
    model(torch.ones(2, 5))  # sizes of another batch
    assert type(model[0]) is nn.Linear
    assert model[0].weight.shape == (8, 5)


@pytest.mark.parametrize("scaled", [False, True])
def test_lazy_layers_keep_their_bits_where_the_first_step_is_looked_into(scaled: bool) -> None:
    expected, bare = lazily(bad_at=-1, scaled=scaled)
    for _ in range(4):
        bare()
    model, step = lazily(bad_at=-1, scaled=scaled)
    nanhunt.preflight(model, step)
    assert nanhunt.hunt(model, step, steps=4, progress=False).finding is None
    pairs = zip(model.state_dict().values(), expected.state_dict().values(), strict=True)
    assert all(torch.equal(found, bits) for found, bits in pairs)
