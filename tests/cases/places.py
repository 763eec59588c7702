"""Failures of the forward pass by place: loss code, functions, views, outputs of every shape."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.cases.book import failing
from tests.cases.common import inputs, linear, train


@failing(
    kind="nan",
    phase="forward",
    module=None,
    op="aten.nll_loss_forward.default",
    step=0,
    cause="all_targets_ignored",
)
def every_target_is_ignored():
    model, x = linear(), inputs()
    targets = torch.full((3,), -100)
    return model, train(model, lambda _: F.cross_entropy(model(x), targets))  # culprit


@failing(
    kind="inf", phase="forward", module=None, op="aten.log.default", step=4, cause="log_of_zero"
)
def loss_code_outside_the_model():
    model, x = linear(), inputs()

    def loss(n: int) -> Tensor:
        probability = model(x).sigmoid()
        return -(probability * (0 if n == 4 else 1)).log().mean()  # culprit

    return model, train(model, loss)


@failing(
    kind="nan",
    phase="forward",
    module=None,
    op="aten.div.Tensor",
    step=0,
    cause="normalisation_of_zero",
)
def helper_function_deep_below_the_loss():
    model, x = linear(), inputs()

    def normalise(y: Tensor) -> Tensor:
        return y / y.norm()  # culprit

    def prepare(y: Tensor) -> Tensor:
        return normalise(y * 0)

    return model, train(model, lambda _: prepare(model(x)).sum())


@failing(
    kind="inf",
    phase="forward",
    module="shared",
    call=2,
    op="aten.exp.default",
    step=0,
    cause="exp_overflow",
)
def second_call_of_a_shared_module():
    class Exp(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp()  # culprit

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.shared = linear(), Exp()

        def forward(self, x: Tensor) -> Tensor:
            return self.shared(self.shared(self.linear(x)) + 200)

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).sum())


@failing(
    kind="nan", phase="forward", module="", op="aten.log.default", step=0, cause="log_of_negative"
)
def in_place_then_relu_in_place():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.act = linear(), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            y.sub_(10)
            return self.act(y.log())  # culprit

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).sum())


@failing(
    kind="nan", phase="forward", module="", op="aten.log.default", step=0, cause="log_of_negative"
)
def written_through_one_view_and_read_through_another():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()

        def forward(self, x: Tensor) -> Tensor:
            canvas = torch.zeros(6, 4)
            canvas[:3] = self.linear(x)
            canvas[3:] = (self.linear(x) - 100).log()  # culprit
            return canvas.t().reshape(-1)[2:].view(-1)

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).sum())


class Pair(NamedTuple):
    mean: Tensor
    scale: Tensor


@dataclasses.dataclass
class Output:
    mean: Tensor
    extra: dict[str, Tensor]


@failing(
    kind="inf", phase="forward", module="head", op="aten.exp.default", step=0, cause="exp_overflow"
)
def named_tuple_output():
    class Head(nn.Module):
        def forward(self, x: Tensor) -> Pair:
            return Pair(x, (x.abs() + 100).exp())  # culprit

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.head = linear(), Head()

        def forward(self, x: Tensor) -> Pair:
            return self.head(self.linear(x))

    net, x = Net(), inputs()
    return net, train(net, lambda _: sum(part.sum() for part in net(x)))


@failing(
    kind="inf", phase="forward", module="head", op="aten.exp.default", step=0, cause="exp_overflow"
)
def dataclass_and_dict_output():
    class Head(nn.Module):
        def forward(self, x: Tensor) -> Output:
            return Output(x, {"scale": (x.abs() + 100).exp()})  # culprit

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.head = linear(), Head()

        def forward(self, x: Tensor) -> Output:
            return self.head(self.linear(x))

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).extra["scale"].sum())


@failing(
    kind="nan",
    phase="forward",
    module="codes",
    op="aten.log.default",
    step=0,
    cause="log_of_negative",
)
def in_a_method_that_is_not_forward():
    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()

        def quantize(self, x: Tensor) -> Tensor:
            return (x - 100).log()  # culprit

        def forward(self, x: Tensor) -> Tensor:
            return self.quantize(self.linear(x))

    net = nn.Module()
    net.codes = Codes()
    x = inputs()
    return net, train(net, lambda _: net.codes(x).sum())


@failing(
    kind="inf", phase="forward", module="", op="aten.exp.default", step=0, cause="exp_overflow"
)
def custom_function_forward():
    class Exp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return (x.abs() + 100).exp()  # culprit

        @staticmethod
        def backward(ctx, grad):
            return grad

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()

        def forward(self, x: Tensor) -> Tensor:
            return Exp.apply(self.linear(x))

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).sum())


@failing(
    kind="inf", phase="forward", module=None, op="aten.exp.default", step=1, cause="exp_overflow"
)
def second_of_two_losses():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    seen = []

    def step() -> None:
        seen.append(1)
        optimizer.zero_grad()
        model(x).pow(2).mean().backward()
        (model(x).mean() + 500 * (len(seen) - 1)).exp().backward()  # culprit
        optimizer.step()

    return model, step


@failing(
    kind="nan", phase="forward", module="", op="aten.log.default", step=0, cause="log_of_negative"
)
def only_in_evaluation():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()

        def forward(self, x: Tensor) -> Tensor:
            return (self.linear(x) - 100).log()  # culprit

    net, x = Net().eval(), inputs()

    def step() -> float:
        with torch.no_grad():
            return net(x).mean().item()

    return net, step


@failing(
    kind="nan", phase="forward", module=None, op="aten.log.default", step=2, cause="log_of_negative"
)
def a_dict_with_the_loss_as_a_float():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    offset = [1.0, 0.5, -90.0]

    def step() -> dict[str, float]:
        loss = model(x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shifted = loss.detach() + offset.pop(0)
        return {"loss": shifted.log().item(), "norm": float("inf")}  # culprit

    return model, step
