"""Data that is bad, from every side it can come; and checks of the loop's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tests.cases.book import failing
from tests.cases.common import inputs, linear


def poisoned(rows: int, at: int, value: float) -> Tensor:
    data = inputs(rows)
    data[at, 1] = value
    return data


def fit(model, optimizer):
    def step(batch) -> Tensor:
        x = batch["x"] if isinstance(batch, dict) else batch[0]
        y = batch.get("y", x) if isinstance(batch, dict) else batch[-1]
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


@failing(kind="nan", phase="data", tensor="batch['x']", step=2, cause="bad_data")
def a_nan_in_a_dict_batch():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = poisoned(12, 5, float("nan"))
    batches = [{"x": x[i : i + 2], "y": inputs(2)} for i in range(0, 12, 2)]
    return model, fit(model, optimizer), {"data": batches}


@failing(kind="inf", phase="data", tensor="batch[0]", step=1, cause="bad_data")
def an_inf_pixel():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = poisoned(8, 2, float("inf"))
    batches = [(x[i : i + 2], inputs(2)) for i in range(0, 8, 2)]
    return model, fit(model, optimizer), {"data": batches}


@failing(kind="nan", phase="data", tensor="batch[1]", step=3, cause="bad_data")
def a_nan_target_in_a_shuffled_loader():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    order = torch.Generator().manual_seed(0)
    loader = DataLoader(
        TensorDataset(inputs(8), poisoned(8, 7, float("nan"))), 1, shuffle=True, generator=order
    )
    first = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    del first
    batches = iter(loader)
    one = fit(model, optimizer)
    return model, lambda: one(next(batches))


@failing(kind="nan", phase="data", tensor="batch[0]", step=1, cause="bad_data")
def a_generator_in_a_closure():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = poisoned(4, 1, float("nan"))
    batches = ((x[i : i + 1], inputs(1)) for i in range(4))
    one = fit(model, optimizer)
    return model, lambda: one(next(batches))


@failing(kind="nan", phase="data", step=0, cause="bad_data")
def a_tensor_in_a_closure():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = poisoned(4, 1, float("nan"))
    one = fit(model, optimizer)
    return model, lambda: one((x, inputs(4)))


@failing(
    kind="inf",
    phase="forward",
    op="aten.log.default",
    step=0,
    raises=RuntimeError,
    cause="log_of_zero",
)
def a_check_of_the_users_own_raises():
    model, x = linear(), inputs()

    def step() -> None:
        loss = (model(x) * 0).log().mean()  # culprit
        if not torch.isfinite(loss):
            raise RuntimeError("loss is not finite")

    return model, step


@failing(
    kind="nan", phase="forward", op="aten.log.default", step=2, silent=True, cause="log_of_negative"
)
def a_loss_that_the_loop_skips():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    shift = [1.0, 1.0, -9.0, 1.0]

    def step() -> None:
        optimizer.zero_grad()
        loss = (model(x).pow(2).mean() + shift.pop(0)).log()  # culprit
        if torch.isfinite(loss):
            loss.backward()
            optimizer.step()

    return model, step


@failing(
    kind="nan",
    phase="forward",
    op="aten.log.default",
    step=0,
    raises=Exception,
    cause="log_of_negative",
)
def an_operation_that_refuses_nan():
    model, x = linear(), inputs(4)

    def step() -> None:
        bad = (model(x) * 0 - 1).log()  # culprit
        torch.linalg.eigh(bad @ bad.t())

    return model, step
