"""Running statistics computed anew: right, and without a trace of how."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import nanhunt
from nanhunt.errors import UsageError
from tests.doctor import files
from tests.doctor.files import Net


def batches(count: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, 1, 5, 5, generator=generator) * 2 + 1 for _ in range(count)]


def statistics(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.named_buffers()}


def poisoned() -> Net:
    net = Net()
    net.body[1].running_mean.fill_(math.inf)
    net.body[4].running_var.fill_(math.nan)
    return net


def test_the_statistics_are_those_that_torch_computes() -> None:
    net, reference = poisoned(), Net()
    reference.load_state_dict(net.state_dict())
    done = nanhunt.recalibrate(net, batches())
    update_bn(batches(), reference)
    for name, value in statistics(reference).items():
        assert torch.equal(value, net.get_buffer(name)), name
    assert (done.layers, done.batches, done.skipped) == (("body.1", "body.4"), 6, 0)
    assert torch.isfinite(net.eval()(batches()[0])).all()


def test_instance_norm_gets_the_average_of_all_batches_too() -> None:
    net = nn.Sequential(nn.InstanceNorm1d(3, track_running_stats=True))
    data = [torch.randn(4, 3, 10) * scale + 5 for scale in (1.0, 2.0, math.nan, 3.0)]
    assert nanhunt.recalibrate(net, data).skipped == 1
    good = [batch for batch in data if torch.isfinite(batch).all()]
    means = torch.stack([batch.mean((0, 2)) for batch in good])
    variances = torch.stack([batch.var(2).mean(0) for batch in good])
    torch.testing.assert_close(net[0].running_mean, means.mean(0))
    torch.testing.assert_close(net[0].running_var, variances.mean(0))
    assert net[0].momentum == 0.1


def test_dropout_is_off_and_nothing_but_statistics_changes() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9), nn.BatchNorm1d(4, momentum=0.3))
    net[0].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    data = [torch.randn(50, 3) for _ in range(2)]
    nanhunt.recalibrate(net, data)
    expected = torch.stack([net[0](x).mean(0) for x in data]).mean(0)
    torch.testing.assert_close(net[2].running_mean, expected)
    assert [module.training for module in net] == [False, True, True]
    assert net[2].momentum == 0.3
    changed = {n for n, value in net.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {"2.running_mean", "2.running_var", "2.num_batches_tracked"}
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_batch_that_is_not_finite_is_left_out() -> None:
    data = batches(3)
    bad = torch.full_like(data[0], math.nan)
    net, clean = poisoned(), poisoned()
    clean.load_state_dict(net.state_dict())
    done = nanhunt.recalibrate(net, [data[0], bad, *data[1:]])
    nanhunt.recalibrate(clean, data)
    assert (done.batches, done.skipped) == (3, 1)
    assert "1 left out" in str(done)
    for name, value in statistics(clean).items():
        assert torch.equal(value, net.get_buffer(name))


def failing() -> Iterator[Tensor]:
    yield from batches(2)
    raise RuntimeError("the disk is gone")


@pytest.mark.parametrize(
    ("loader", "error"),
    [
        (failing(), RuntimeError),
        ([], UsageError),
        ([torch.full((4, 1, 5, 5), math.inf)], UsageError),
    ],
    ids=["exception", "no batch", "no usable batch"],
)
def test_when_it_fails_the_statistics_are_as_before(loader: Any, error: type) -> None:
    net = poisoned().eval()
    before = statistics(net)
    with pytest.raises(error):
        nanhunt.recalibrate(net, loader)
    for name, value in before.items():
        assert files.raw_bytes(value) == files.raw_bytes(net.get_buffer(name))
    assert not any(module.training for module in net.modules())
    assert net.body[1].momentum == 0.1


def test_batches_are_taken_apart_as_loaders_give_them() -> None:
    plain = poisoned()
    nanhunt.recalibrate(plain, batches(2))
    forms: list[Any] = [
        ([(x, "label") for x in batches(2)], None),
        ([{"x": x} for x in batches(2)], None),
        ([{"image": x} for x in batches(2)], lambda net, batch: net(batch["image"])),
    ]
    for loader, forward in forms:
        net = poisoned()
        net.load_state_dict({**net.state_dict(), **dict(plain.named_parameters())})
        nanhunt.recalibrate(net, loader, forward=forward)
        assert torch.equal(net.body[4].running_var, plain.body[4].running_var)
    assert nanhunt.recalibrate(poisoned(), batches(9), batches=4).batches == 4


def test_without_such_layers_there_is_nothing_to_do() -> None:
    with pytest.raises(UsageError, match="no layer with running statistics"):
        nanhunt.recalibrate(nn.Linear(2, 2), [torch.ones(1, 2)])


def test_statistics_of_half_a_model_are_not_computed(tmp_path: Path) -> None:
    tree = files.whole()
    tree["model"]["body.4.running_mean"][1] = math.inf
    del tree["model"]["body.0.weight"]
    path = files.torch_file(tmp_path / "x.pt", tree)
    with pytest.raises(UsageError, match="1 of the model's tensors are not in the file"):
        nanhunt.doctor(path, Net(), fix=True, data=batches())
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]


def test_a_repair_with_data_computes_the_statistics_of_bad_layers_alone(tmp_path: Path) -> None:
    tree = files.whole()
    tree["model"]["body.4.running_mean"][1] = math.inf
    path = files.torch_file(tmp_path / "x.pt", tree)
    model = Net()
    untouched = {name: value.clone() for name, value in model.state_dict().items()}
    diagnosis = nanhunt.doctor(path, model, fix=True, data=batches())
    assert diagnosis.mended
    after = torch.load(tmp_path / "x_FIXED.pt", weights_only=True)["model"]
    expected = Net()
    expected.load_state_dict(tree["model"])
    nanhunt.recalibrate(expected, batches())
    for name, value in after.items():
        wanted = expected.state_dict() if name.startswith("body.4.") else tree["model"]
        assert torch.equal(value, wanted[name]), name
    assert all(torch.equal(v, untouched[name]) for name, v in model.state_dict().items())


class Odd(nn.Module):
    """Two names for one weight, something in its state that is no tensor, and a complex one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("phase", torch.ones(2, dtype=torch.complex64))

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(self.first(x)) * self.phase.real)


@pytest.mark.parametrize("way", ["as it is", "tied", "expanded"])
def test_whatever_a_model_can_be_loaded_from_is_enough_for_its_statistics(
    way: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Odd()
    expected = Odd()
    expected.load_state_dict(model.state_dict(), strict=False)
    state = model.state_dict()
    state["norm.running_mean"] = torch.tensor([math.nan, 0.0])
    if way == "tied":
        del state["second.weight"]
    if way == "expanded":
        state["phase"] = torch.ones(1, dtype=torch.complex64).expand(2)
        state["norm.weight"] = torch.ones(1).expand(2)
    path = files.torch_file(tmp_path / "x.pt", state)
    data = [torch.randn(8, 2) for _ in range(3)]
    assert nanhunt.doctor(path, model, fix=True, data=data).repair is not None
    nanhunt.recalibrate(expected, data)
    after = torch.load(tmp_path / "x_FIXED.pt", weights_only=True)
    assert torch.equal(after["norm.running_mean"], expected.norm.running_mean)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of making quantized tensors
def test_statistics_are_not_computed_from_a_weight_that_cannot_be_read(tmp_path: Path) -> None:
    state = Net().state_dict()
    state["body.1.running_mean"][0] = math.nan
    state["head.weight"] = torch.quantize_per_tensor(state["head.weight"], 0.1, 0, torch.qint8)
    path = files.torch_file(tmp_path / "x.pt", state)
    with pytest.raises(UsageError, match="1 of the model's tensors are not in the file"):
        nanhunt.doctor(path, Net(), fix=True, data=batches())
