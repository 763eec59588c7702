"""Failures that are born in the backward pass of a healthy forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.cases.book import failing
from tests.cases.common import in_module, inputs, linear, train


@failing(
    kind="inf",
    phase="backward",
    module="bad",
    node="SqrtBackward0",
    step=0,
    cause="sqrt_gradient_at_zero",
)
def sqrt_at_zero():
    return in_module(lambda x: (x - x.detach()).abs().sqrt())  # culprit


@failing(
    kind="inf", phase="backward", module="bad", node="DivBackward0", step=0, cause="where_trap"
)
def the_where_trap_of_a_division():
    def safe_looking(x: Tensor) -> Tensor:
        zero = x * 0
        return torch.where(zero > 0, x / zero.abs(), x)  # culprit

    return in_module(safe_looking)


@failing(
    kind="nan", phase="backward", module="bad", node="LogBackward0", step=2, cause="where_trap"
)
def the_where_trap_of_a_logarithm():
    return in_module(lambda x: torch.where(x > 1e9, (x * 0).log(), x), at=2)  # culprit


@failing(
    kind="inf",
    phase="backward",
    module="bad",
    node="PowBackward0",
    step=0,
    cause="power_gradient_at_zero",
)
def a_root_at_zero():
    return in_module(lambda x: (x - x.detach()) ** 0.3)  # culprit


@failing(
    kind="inf",
    phase="backward",
    module="bad",
    node="AcosBackward0",
    step=0,
    cause="arc_gradient_at_one",
)
def acos_at_one():
    return in_module(lambda x: torch.acos(x * 0 + 1))  # culprit


@failing(
    kind="inf",
    phase="backward",
    module="bad",
    node="AsinBackward0",
    step=0,
    cause="arc_gradient_at_one",
)
def asin_at_minus_one():
    return in_module(lambda x: torch.asin(x * 0 - 1))  # culprit


@failing(
    kind="nan",
    phase="backward",
    module="bad",
    node="LinalgSvdBackward0",
    step=0,
    cause="degenerate_eigenvalues",
)
def singular_vectors_of_a_degenerate_matrix():
    def rotate(x: Tensor) -> Tensor:
        u, _, v = torch.linalg.svd(torch.eye(4) + 0 * x.mean())  # culprit
        return u @ v.abs()

    return in_module(rotate)


@failing(
    kind="nan",
    phase="backward",
    module=None,
    node="LinalgEighBackward0",
    step=0,
    cause="degenerate_eigenvalues",
)
def eigenvectors_of_a_degenerate_matrix():
    model, x = linear(), inputs(4)

    def loss(_: int) -> Tensor:
        matrix = torch.eye(4) + 0 * model(x)
        values, vectors = torch.linalg.eigh(matrix)  # culprit
        return vectors.abs().sum() + values.sum()

    return model, train(model, loss)


@failing(
    kind="inf", phase="backward", module="", node="BadBackward", step=0, cause="division_by_zero"
)
def custom_function_backward():
    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad / 0

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()

        def forward(self, x: Tensor) -> Tensor:
            return Bad.apply(self.linear(x))  # culprit

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).sum())


@failing(
    kind="inf",
    phase="backward",
    module="bad",
    node="SqrtBackward0",
    step=0,
    cause="sqrt_gradient_at_zero",
)
def a_logged_norm_spreads_one_bad_gradient():
    model, _ = in_module(lambda x: (x - x.detach()).abs().sqrt())  # culprit
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = inputs()

    def step() -> None:
        optimizer.zero_grad()
        model(x).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
        optimizer.step()

    return model, step


@failing(
    kind="inf",
    phase="backward",
    module=None,
    node="SqrtBackward0",
    step=0,
    cause="sqrt_gradient_at_zero",
)
def gradient_penalty_with_a_second_backward():
    model = nn.Sequential(linear(), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    x = torch.zeros(3, 4, requires_grad=True)

    def step() -> None:
        optimizer.zero_grad()
        out = model(x).sum() * 0
        (grad,) = torch.autograd.grad(out, x, create_graph=True)
        penalty = grad.pow(2).sum().sqrt()  # culprit
        penalty.backward()
        optimizer.step()

    return model, step


@failing(
    kind="inf",
    phase="backward",
    module=None,
    node="SqrtBackward0",
    step=5,
    cause="sqrt_gradient_at_zero",
)
def accumulated_over_several_calls():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    count = {"calls": 0}

    def step() -> None:
        count["calls"] += 1
        y = model(x)
        if count["calls"] == 6:
            y = (y - y.detach()).abs().sqrt()  # culprit
        (y.sum() / 4).backward()
        if count["calls"] % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()

    return model, step, {"optimizer": optimizer}


@failing(
    kind="inf",
    phase="backward",
    module="disc.bad",
    node="SqrtBackward0",
    step=1,
    cause="sqrt_gradient_at_zero",
)
def second_optimizer_of_a_gan():
    gen = linear()
    disc, _ = in_module(lambda x: (x - x.detach()).abs().sqrt())  # culprit
    first = torch.optim.Adam(gen.parameters())
    second = torch.optim.Adam(disc.parameters())
    x, count = inputs(), {"steps": 0}

    def step() -> None:
        first.zero_grad()
        disc.linear(gen(x)).mean().backward()
        first.step()
        second.zero_grad()
        score = disc if count["steps"] == 1 else disc.linear
        count["steps"] += 1
        score(gen(x).detach()).mean().backward()
        second.step()

    return {"gen": gen, "disc": disc}, step


@failing(
    kind="inf",
    phase="backward",
    module="bad",
    node="AcosBackward0",
    step=0,
    cause="arc_gradient_at_one",
)
def in_place_after_the_culprit():
    return in_module(lambda x: torch.acos(x * 0 + 1).mul_(2).add_(1))  # culprit


@failing(
    kind="inf",
    phase="backward",
    module=None,
    node="SqrtBackward0",
    step=3,
    silent=True,
    cause="sqrt_gradient_at_zero",
)
def gradients_that_the_loop_makes_finite_again():
    model, x = linear(), inputs()
    optimizer = torch.optim.Adam(model.parameters())
    count = {"steps": -1}

    def step() -> Tensor:
        count["steps"] += 1
        optimizer.zero_grad()
        y = model(x).abs()
        loss = (y * 0 if count["steps"] == 3 else y).sqrt().sum()  # culprit
        loss.backward()
        for parameter in model.parameters():
            parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        optimizer.step()
        return loss.detach()

    return model, step
