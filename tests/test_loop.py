"""A hunt around a loop of the user's own."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nanhunt.core.hunting.loop import LoopHunt


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return (y.abs() + x.abs().amax()).exp()  # culprit


def loop(net: nn.Module, loud_at: int = 4, steps: int = 8) -> list[Tensor]:
    optimizer = torch.optim.Adam(net.parameters())
    kept = []
    for number in range(steps):
        optimizer.zero_grad()
        x = torch.ones(2, 4) * (200.0 if number == loud_at else 0.1)
        net(x).log1p().mean().backward()
        kept.append([p.detach().clone() for p in net.parameters()])
        optimizer.step()
    return kept


def test_the_line_inside_the_model_is_found_and_the_step_undone() -> None:
    torch.manual_seed(0)
    net = Net()
    kept = loop(net, loud_at=99)
    torch.manual_seed(0)
    net = Net()
    with LoopHunt(net, progress=False) as hunt:
        loop(net)
    finding = hunt.report.finding
    assert finding is not None
    assert (finding.step, finding.op, finding.kind) == (4, "aten.exp.default", "inf")
    assert finding.source is not None
    assert finding.source.code.endswith("# culprit")
    assert any("recorded inputs" in note for note in hunt.report.notes)
    assert all(map(torch.equal, net.parameters(), kept[4]))


def test_a_healthy_loop_ends_with_the_bits_of_a_bare_one() -> None:
    torch.manual_seed(0)
    bare = Net()
    loop(bare, loud_at=99)
    torch.manual_seed(0)
    net = Net()
    with LoopHunt(net, progress=False) as hunt:
        loop(net, loud_at=99)
    assert hunt.report.healthy
    assert hunt.report.steps_run == 8
    assert all(map(torch.equal, net.parameters(), bare.parameters()))


def test_a_fault_in_the_loops_own_code_is_said_to_be_there() -> None:
    net = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with LoopHunt(net, progress=False) as hunt:
        for number in range(3):
            optimizer.zero_grad()
            ((net(torch.ones(2, 4)) * (0 if number == 2 else 1)).abs()).log().sum().backward()
            optimizer.step()
    finding = hunt.report.finding
    assert finding is not None
    assert finding.step == 2
    assert "loop's own code" in finding.explanation


def test_an_exception_of_the_loop_is_its_own() -> None:
    net = nn.Linear(4, 1)

    def cell() -> None:
        with LoopHunt(net, progress=False):
            net(torch.ones(2, 4)).sum().backward()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        cell()


def test_ctrl_c_ends_the_loop_with_a_partial_report() -> None:
    net = Net()
    with LoopHunt(net, progress=False) as hunt:
        loop(net, loud_at=99, steps=2)
        raise KeyboardInterrupt
    assert hunt.report.interrupted
    assert hunt.report.steps_run == 2


def test_a_model_that_updates_itself_while_it_is_called_is_watched() -> None:
    """As one whose training step is called through a wrapper's forward."""

    class Itself(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()
            self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01)

        def forward(self, x: Tensor) -> Tensor:
            self.optimizer.zero_grad()
            loss = self.net(x).mean()
            loss.backward()
            self.optimizer.step()
            return loss

    model = Itself()
    with LoopHunt(model, progress=False, complex_half=False) as hunt:
        for _ in range(3):
            model(torch.ones(2, 4))
    assert hunt.report.healthy
    assert hunt.report.steps_run == 3


def test_a_root_within_another_keeps_the_gradients_of_its_own_output() -> None:
    outer = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(outer.parameters(), lr=0.01)
    with LoopHunt({"all": outer, "part": outer[0]}, progress=False, complex_half=False) as hunt:
        outer(torch.ones(2, 4)).sum().backward()
        kept = [call.gradients for call in hunt._calls.calls]
        optimizer.step()
    shapes = [{number: tuple(g.shape) for number, g in gradients.items()} for gradients in kept]
    assert shapes == [{0: (2, 1)}, {0: (2, 3)}]


def test_an_evaluation_that_forgot_no_grad_does_not_hold_all_of_its_data() -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    seen = []
    with LoopHunt(net, progress=False, complex_half=False):
        net(torch.ones(2, 4)).mean().backward()
        optimizer.step()
        net.eval()
        for _ in range(50):
            x = torch.ones(2, 4)
            seen.append(weakref.ref(x))
            net(x)
        del x
        assert sum(ref() is not None for ref in seen) <= 16


def test_a_step_of_many_batches_in_eval_mode_is_replayed_whole() -> None:
    """With BatchNorm frozen, and its gradients accumulated."""
    net = Net().eval()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    with LoopHunt(net, progress=False, complex_half=False) as hunt:
        for number in range(40):
            net(torch.ones(2, 4) * (200.0 if number == 0 else 0.1)).log1p().mean().backward()
        optimizer.step()
    finding = hunt.report.finding
    assert finding is not None
    assert (finding.module, finding.call, finding.op) == ("", 1, "aten.exp.default")


class Into(torch.autograd.Function):
    """The same number, in memory where something else lay before."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, place: Tensor) -> Tensor:
        return place.detach().copy_(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None


def test_a_loss_in_the_memory_of_an_earlier_scaled_loss_is_looked_at() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    optimizer = torch.optim.Adam(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    place = None
    with LoopHunt(model, progress=False) as hunt:
        for number in range(6):
            optimizer.zero_grad()
            x = torch.randn(3, 4) * (1e38 if number == 5 else 0.1)
            loss = model(x).square().mean()
            if place is not None:
                loss = Into.apply(loss, place)
            scaled = scaler.scale(loss)
            place = scaled.detach() if place is None else place
            scaled.backward()
            scaler.step(optimizer)
            scaler.update()
    assert hunt.report.finding is not None
    assert hunt.report.finding.step == 5


def test_what_begins_in_the_model_is_placed_there_although_the_loss_is_bad_too() -> None:
    """The gradients that its recorded outputs got are bad as well, and are no origin."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with LoopHunt(model, progress=False) as hunt:
        for number in range(4):
            x = torch.randn(3, 4)
            if number == 2:
                for layer in model[1:]:
                    layer.weight.data.mul_(1e12)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2])).backward()
            optimizer.step()
    finding = hunt.report.finding
    assert finding is not None
    assert (finding.step, finding.phase, finding.module) == (2, "forward", "4")
    assert finding.op == "aten.addmm.default"


class LogOfZero(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return (self.linear(x) * 0).log()


def test_outputs_of_minus_infinity_are_not_said_to_be_finite() -> None:
    model = LogOfZero()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with LoopHunt(model, progress=False) as hunt:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
        optimizer.step()
    assert hunt.report.finding is not None
    assert "were finite" not in hunt.report.finding.explanation
