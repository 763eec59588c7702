"""Failures of the update itself."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.cases.book import failing
from tests.cases.common import inputs, linear, train


@failing(
    kind="nan",
    phase="optimizer",
    module=None,
    op="aten.addcdiv_.default",
    step=0,
    cause="optimizer_epsilon_lost",
)
def adam_without_epsilon_divides_zero_by_zero():
    model, x = linear(), inputs()
    optimizer = torch.optim.Adam(model.parameters(), eps=0.0, foreach=False)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) * 0).sum()
        loss.backward()
        optimizer.step()  # culprit
        return loss.detach()

    return model, step


@failing(
    kind="nan",
    phase="optimizer",
    module=None,
    op="aten._foreach_addcdiv_.ScalarList",
    step=0,
    cause="optimizer_epsilon_lost",
)
def adam_foreach_without_epsilon():
    model, x = linear(), inputs()
    optimizer = torch.optim.Adam(model.parameters(), eps=0.0, foreach=True)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) * 0).sum()
        loss.backward()
        optimizer.step()  # culprit
        return loss.detach()

    return model, step


@failing(
    kind="inf",
    phase="optimizer",
    module=None,
    op="aten.addcmul_.default",
    step=1,
    cause="second_moment_overflow",
)
def the_second_moment_overflows():
    model, x = linear(), inputs()
    optimizer = torch.optim.Adam(model.parameters(), foreach=False)
    seen = []

    def step() -> None:
        seen.append(1)
        optimizer.zero_grad()
        (model(x).sum() * (1e25 if len(seen) == 2 else 1.0)).backward()
        optimizer.step()  # culprit

    return model, step


@failing(
    kind="inf",
    phase="optimizer",
    module=None,
    op="aten.add_.Tensor",
    step=2,
    cause="update_overflow",
)
def a_learning_rate_that_explodes():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1.0 if n < 2 else 1e38)

    def step() -> None:
        optimizer.zero_grad()
        (model(x).sum() * 1e3).backward()
        optimizer.step()  # culprit
        scheduler.step()

    return model, step


@failing(
    kind="inf",
    phase="optimizer",
    module=None,
    op="aten.add_.Tensor",
    step=0,
    cause="update_overflow",
)
def weight_decay_that_explodes():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e20, weight_decay=1e30, foreach=False)

    def step() -> None:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()  # culprit

    return model, step


@failing(
    kind="inf",
    phase="optimizer",
    module=None,
    op="aten.div.Tensor",
    step=3,
    cause="division_by_zero",
)
def an_update_by_hand():
    model, x = linear(), inputs()
    seen = []

    def step() -> None:
        seen.append(1)
        model.zero_grad()
        model(x).sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(parameter.grad / (4 - len(seen)))  # culprit

    return model, step, {"optimizer": ()}


@failing(
    kind="inf",
    phase="optimizer",
    module=None,
    op="aten.mul.Tensor",
    step=1,
    cause="update_overflow",
)
def an_optimizer_of_the_users_own():
    class Mine(torch.optim.Optimizer):
        def __init__(self, parameters) -> None:
            super().__init__(parameters, {"rate": 0.1})

        def step(self, closure=None):
            for group in self.param_groups:
                group["rate"] *= 1e30
                for parameter in group["params"]:
                    change = parameter.grad * (group["rate"] * 1e5)  # culprit
                    parameter.data.sub_(change)

    model, x = linear(), inputs()
    return model, train(model, lambda _: model(x).mean() * 10, Mine(model.parameters()))


@failing(
    kind="nan", phase="forward", module=None, op="aten.log.default", step=8, cause="log_of_negative"
)
def a_growth_that_crosses_zero():
    model, x = linear(), inputs()
    level = torch.tensor(8.5)

    def loss(_: int) -> Tensor:
        level.sub_(1)
        return (level + model(x).mean() * 0).log()  # culprit

    return model, train(model, loss)
