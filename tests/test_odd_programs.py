"""Programs with odd parts are watched to their end, with the bits of a bare run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import nanhunt

Made = tuple[Any, Callable[[], Any], torch.optim.Optimizer]
STEPS = 6


def stepper(
    model: nn.Module, loss_of: Callable[[], Tensor], optimizer: torch.optim.Optimizer | None = None
) -> Made:
    chosen = optimizer or torch.optim.Adam(model.parameters(), lr=1e-2)

    def step() -> Tensor:
        chosen.zero_grad()
        loss = loss_of()
        loss.backward()
        chosen.step()
        return loss

    return model, step, chosen


def closure_optimizer() -> Made:
    model, x = nn.Linear(4, 1), torch.randn(8, 4)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
        loss.backward()
        return loss

    return model, lambda: optimizer.step(closure), optimizer


def lazy_layers() -> Made:
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Linear(4, 1))
    x = torch.randn(8, 3)
    optimizers: list[torch.optim.Optimizer] = []

    def step() -> Tensor:
        loss = model(x).pow(2).mean()
        if not optimizers:
            optimizers.append(torch.optim.SGD(model.parameters(), lr=0.1))
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        return loss

    return model, step, torch.optim.SGD([torch.zeros(1)], lr=0.1)


def scripted() -> Made:
    model = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)))
    x = torch.randn(8, 4)
    return stepper(model, lambda: model(x).pow(2).mean())


def vectorised() -> Made:
    model, x = nn.Linear(4, 4), torch.randn(8, 4)
    return stepper(model, lambda: torch.vmap(lambda row: model(row).pow(2).sum())(x).mean())


def functional_gradient() -> Made:
    model, x = nn.Linear(4, 1), torch.randn(4)
    parameters = dict(model.named_parameters())

    def loss() -> Tensor:
        call = torch.func.functional_call
        slope = torch.func.grad(lambda v: call(model, parameters, (v,)).sum())(x)
        return slope.pow(2).sum()

    return stepper(model, loss)


def empty_and_integer_buffers() -> Made:
    model = nn.Linear(4, 1)
    model.register_buffer("nothing", torch.empty(0))
    model.register_buffer("index", torch.arange(4))
    model.register_buffer("absent", None)
    model.register_buffer("shape_only", torch.empty(3, device="meta"))
    x = torch.randn(8, 4)
    return stepper(model, lambda: model(x[:, model.index]).pow(2).mean())


def missing_gradients() -> Made:
    model = nn.ModuleDict({"used": nn.Linear(4, 1), "unused": nn.Linear(4, 1)})
    x = torch.randn(8, 4)
    return stepper(model, lambda: model["used"](x).pow(2).mean())


def double_precision() -> Made:
    model, x = nn.Linear(4, 1).double(), torch.randn(8, 4).double()
    return stepper(model, lambda: model(x * 1e50).abs().mean())


def eight_bit_floats() -> Made:
    model, x = nn.Linear(4, 4), torch.randn(8, 4)
    model.register_buffer("table", torch.randn(4).to(torch.float8_e4m3fn))
    return stepper(model, lambda: (model(x) * model.table.float()).pow(2).mean())


def capturable_tensor_learning_rate() -> Made:
    model, x = nn.Linear(4, 1), torch.randn(8, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01))
    return stepper(model, lambda: model(x).pow(2).mean(), optimizer)


def workers_and_shuffle() -> Made:
    model = nn.Linear(4, 1)
    loader = DataLoader(TensorDataset(torch.randn(64, 4)), 4, shuffle=True, num_workers=1)
    batches = iter(loader)
    return stepper(model, lambda: model(next(batches)[0]).pow(2).mean())


def tied_weights() -> Made:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    x = torch.randn(8, 4)
    return stepper(model, lambda: model(x).pow(2).mean())


PROGRAMS = [
    closure_optimizer,
    lazy_layers,
    scripted,
    vectorised,
    functional_gradient,
    empty_and_integer_buffers,
    missing_gradients,
    double_precision,
    eight_bit_floats,
    capturable_tensor_learning_rate,
    workers_and_shuffle,
    tied_weights,
]


def end(make: Callable[[], Made], watched: bool) -> list[Tensor]:
    torch.manual_seed(0)
    model, step, optimizer = make()
    if watched:
        report = nanhunt.hunt(model, step, steps=STEPS, progress=False)
        assert report.findings == (), str(report)
        assert report.steps_run == STEPS
    else:
        for _ in range(STEPS):
            step()
    state = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    return [t for t in (*model.parameters(), *state) if not t.is_meta] + [torch.get_rng_state()]


@pytest.mark.parametrize("make", PROGRAMS)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_an_odd_program_ends_with_the_bits_of_a_bare_run(make: Callable[[], Made]) -> None:
    bare, watched = end(make, watched=False), end(make, watched=True)
    assert all(map(torch.equal, bare, watched))


@pytest.mark.parametrize("make", [m for m in PROGRAMS if m is not lazy_layers])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_rewinding_an_odd_program_gives_the_same_step_again(make: Callable[[], Made]) -> None:
    torch.manual_seed(0)
    model, step, _ = make()
    with nanhunt.Hunt(model, step, progress=False) as hunt:
        hunt.run(2)
        hunt.step()
        once = [p.detach().clone() for p in model.parameters()]
        hunt.rewind()
        hunt.step()
        assert all(map(torch.equal, model.parameters(), once))


@pytest.mark.filterwarnings("ignore:.*quantiz.*")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_quantized_and_sparse_values_are_looked_at_where_they_can_be() -> None:
    from nanhunt.core.tensors.stats import count_bad, real_values, tensor_stats

    quantized = torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.qint8)
    assert real_values(quantized) is None
    assert tensor_stats(quantized, "q").numel == 4
    sparse = torch.sparse_coo_tensor([[0, 2]], [1.0, float("nan")], (4,))
    assert count_bad(sparse) == (1, 0, 0)
    half = torch.view_as_complex(torch.tensor([[1.0, float("inf")]], dtype=torch.float16))
    assert count_bad(half) == (0, 1, 0)
    assert count_bad(torch.empty(3, device="meta")) == (0, 0, 0)


@pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_a_bad_value_in_a_nested_tensor_is_placed(layout: torch.layout) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    x = torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(3, 4)], layout=layout)
    factors = iter([0.5, 0.5, torch.inf])

    def loss_of() -> Tensor:
        y = model(x)
        y = y * next(factors)  # culprit
        return torch.nested.to_padded_tensor(torch.relu(y), 0.0).pow(2).mean()

    report = nanhunt.hunt(*stepper(model, loss_of)[:2], steps=3, progress=False, trials=False)
    assert report.finding is not None
    assert report.finding.source is not None
    assert (report.finding.step, report.finding.op) == (2, "aten.mul.Tensor")
    assert report.finding.source.code.endswith("# culprit")
    assert report.finding.outputs[0].posinf > 0
