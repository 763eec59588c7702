"""State that was bad when the step began, and buffers that go bad in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.cases.book import failing
from tests.cases.common import inputs, linear, train


@failing(
    kind="poisoned_state", phase="state", tensor="0.weight", step=0, cause="weights_bad_before"
)
def a_weight_that_is_nan():
    net = nn.Sequential(linear(), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        net[0].weight[1, 2] = float("nan")
    x = inputs()
    return net, train(net, lambda _: net(x).sum())


@failing(
    kind="poisoned_state",
    phase="state",
    tensor="norm.running_mean",
    step=0,
    cause="statistics_bad_before",
)
def statistics_that_are_inf_in_evaluation():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = linear(), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.linear(x))

    net, x = Net(), inputs()
    net.norm.running_mean[3] = float("inf")
    net.norm.eval()
    return net, train(net, lambda _: net(x).sum())


@failing(
    kind="poisoned_state",
    phase="state",
    tensor="norm.running_var",
    step=0,
    cause="statistics_bad_before",
)
def statistics_that_are_nan_while_training_looks_healthy():
    net = nn.Sequential()
    net.linear, net.norm = linear(), nn.BatchNorm1d(4)
    net.norm.running_var[0] = float("nan")
    x = inputs()
    return net, train(net, lambda _: net(x).pow(2).sum())


@failing(
    kind="poisoned_state",
    phase="state",
    tensor="optimizer.state[weight].exp_avg_sq",
    step=0,
    cause="optimizer_state_bad_before",
)
def an_optimizer_state_restored_bad():
    model, x = linear(), inputs()
    optimizer = torch.optim.Adam(model.parameters())
    step = train(model, lambda _: model(x).sum(), optimizer)
    step()
    optimizer.state[model.weight]["exp_avg_sq"][0, 0] = float("nan")
    return model, step


@failing(kind="poisoned_state", phase="state", tensor="table", step=0, cause="buffer_bad_before")
def a_buffer_of_inf_that_is_used():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()
            self.register_buffer("table", torch.full((4,), float("inf")))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * self.table

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).sum())


@failing(
    kind="inf",
    phase="forward",
    module="vq",
    op="aten.mul_.Tensor",
    tensor="vq.codes",
    step=3,
    cause="buffer_drift",
)
def a_codebook_that_drifts():
    class Quantiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("codes", torch.ones(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.codes.mul_(1e10)  # culprit
            return x

    net = nn.Sequential()
    net.linear, net.vq = linear(), Quantiser()
    x = inputs()
    return net, train(net, lambda _: net(x).sum())


@failing(
    kind="inf",
    phase="forward",
    module="",
    op="aten.exp.default",
    tensor="scale",
    step=3,
    cause="exp_overflow",
)
def a_buffer_written_through_data():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()
            self.register_buffer("scale", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.scale.data.copy_((self.scale + 1).exp())  # culprit
            return self.linear(x)

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).sum())


@failing(
    kind="nan",
    phase="forward",
    module="",
    op="aten.log.default",
    tensor="scale",
    step=2,
    cause="log_of_negative",
)
def a_buffer_that_is_replaced():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()
            self.register_buffer("scale", torch.full((3,), 2.0))

        def forward(self, x: Tensor) -> Tensor:
            if self.linear.calls:
                self.scale = (self.scale - 0.5).log()  # culprit
            self.linear.calls += 1
            return self.linear(x)

    net, x = Net(), inputs()
    net.linear.calls = 0
    return net, train(net, lambda _: net(x).sum())
