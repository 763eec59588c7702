"""Failures of the forward pass: in modules, functions, loss code, views, outputs of every shape."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.cases.book import failing
from tests.cases.common import inputs, linear, train


def in_module(function, at: int = 0, **layers):
    """A net whose submodule `bad` applies `function` to the output of its linear layer."""

    class Bad(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()
            self.bad = Bad()

        def forward(self, x: Tensor) -> Tensor:
            return self.bad(self.linear(x))

    net = Net()
    x = inputs()
    return net, train(net, lambda n: net(x).sum() if n >= at else net.linear(x).sum())


@failing(
    kind="inf", phase="forward", module="bad", op="aten.log.default", step=0, cause="log_of_zero"
)
def log_of_zero():
    return in_module(lambda x: (x * 0).log())  # culprit


@failing(
    kind="nan",
    phase="forward",
    module="bad",
    op="aten.log.default",
    step=3,
    cause="log_of_negative",
)
def log_of_a_negative_late():
    return in_module(lambda x: (-x.abs() - 1).log(), at=3)  # culprit


@failing(
    kind="nan",
    phase="forward",
    module="bad",
    op="aten.sqrt.default",
    step=0,
    cause="sqrt_of_negative",
)
def sqrt_of_a_negative():
    return in_module(lambda x: (-x.abs() - 1).sqrt())  # culprit


@failing(
    kind="nan", phase="forward", module="bad", op="aten.div.Tensor", step=0, cause="zero_by_zero"
)
def zero_by_zero():
    return in_module(lambda x: (x * 0) / (x * 0))  # culprit


@failing(
    kind="inf",
    phase="forward",
    module="bad",
    op="aten.reciprocal.default",
    step=1,
    cause="division_by_zero",
)
def reciprocal_of_zero():
    return in_module(lambda x: torch.reciprocal(x * 0), at=1)  # culprit


@failing(
    kind="inf",
    phase="forward",
    module="bad",
    op="aten.rsqrt.default",
    step=0,
    cause="division_by_zero",
)
def rsqrt_of_zero():
    return in_module(lambda x: torch.rsqrt(x * 0))  # culprit


@failing(
    kind="inf", phase="forward", module="bad", op="aten.exp.default", step=2, cause="exp_overflow"
)
def exp_overflows():
    return in_module(lambda x: (x.abs() + 100).exp(), at=2)  # culprit


@failing(
    kind="inf",
    phase="forward",
    module="bad",
    op="aten.pow.Tensor_Scalar",
    step=0,
    cause="float32_overflow",
)
def pow_overflows():
    return in_module(lambda x: (x.abs() + 1e10) ** 5)  # culprit


@failing(
    kind="nan",
    phase="forward",
    module="bad",
    op="aten.pow.Tensor_Scalar",
    step=0,
    cause="power_of_negative",
)
def root_of_a_negative():
    return in_module(lambda x: (-x.abs() - 1) ** 0.5)  # culprit


@failing(
    kind="nan",
    phase="forward",
    module="bad",
    op="aten.acos.default",
    step=0,
    cause="outside_domain",
)
def acos_beyond_one():
    return in_module(lambda x: torch.acos(x.abs() + 1.5))  # culprit


@failing(
    kind="inf",
    phase="forward",
    module="bad",
    op="aten.atanh.default",
    step=0,
    cause="outside_domain",
)
def atanh_of_one():
    return in_module(lambda x: torch.atanh(x * 0 + 1))  # culprit


@failing(
    kind="nan",
    phase="forward",
    module="bad",
    op="aten.std.correction",
    step=0,
    cause="deviation_of_one_element",
)
def deviation_of_one_element():
    return in_module(lambda x: x[:1, :1].std(dim=0))  # culprit


@failing(
    kind="nan",
    phase="forward",
    module="bad",
    op="aten.mean.default",
    step=0,
    cause="mean_of_nothing",
)
def mean_of_nothing():
    return in_module(lambda x: x[x > 1e9].mean())  # culprit


@failing(
    kind="nan",
    phase="forward",
    module="bad",
    op="aten._softmax.default",
    step=0,
    cause="softmax_fully_masked",
)
def softmax_over_a_fully_masked_row():
    mask = torch.tensor([[True] * 4, [False] * 4, [False] * 4])
    return in_module(lambda x: x.masked_fill(mask, float("-inf")).softmax(-1))  # culprit


@failing(
    kind="nan", phase="forward", module="bad", op="aten.sub.Tensor", step=0, cause="inf_minus_inf"
)
def difference_of_two_masks():
    def difference(x: Tensor) -> Tensor:
        masked = x.masked_fill(x == x, float("-inf"))
        return masked - masked.amax()  # culprit

    return in_module(difference)


@failing(
    kind="nan", phase="forward", module="bad", op="aten.mul.Tensor", step=0, cause="zero_times_inf"
)
def zero_times_a_mask():
    def product(x: Tensor) -> Tensor:
        mask = torch.full_like(x, float("-inf")).triu(1)
        return x + mask * 0  # culprit

    return in_module(product)


@failing(
    kind="inf",
    phase="forward",
    module="bad",
    op="aten.mul.Tensor",
    step=0,
    cause="float32_overflow",
)
def an_overflow_that_becomes_nan_later():
    def run(x: Tensor) -> Tensor:
        y = (x.abs() + 1) * 3e38 * 10  # culprit
        return y - y

    return in_module(run)


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
