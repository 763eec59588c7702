"""Half precision: overflow in casts, products, attention; ComplexHalf; GradScaler."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.cases.book import failing
from tests.cases.common import in_module, inputs, linear, train

HALF = {"device_type": "cpu", "dtype": torch.float16}


@failing(
    kind="inf",
    phase="forward",
    module="bad",
    op="aten._to_copy.default",
    step=0,
    cause="half_cast_overflow",
)
def a_cast_to_half_overflows():
    return in_module(lambda x: ((x.abs() + 1) * 1e5).half().float())  # culprit


@failing(
    kind="inf",
    phase="forward",
    module="bad",
    op="aten.mm.default",
    step=3,
    cause="half_matmul_overflow",
)
def a_product_overflows_under_autocast():
    def product(x: Tensor) -> Tensor:
        with torch.autocast(**HALF):
            return (x.abs() * 100 + 200) @ (x.abs() * 100 + 200).t()  # culprit

    return in_module(product, at=3)


@failing(
    kind="inf",
    phase="forward",
    module="bad",
    op="aten.pow.Tensor_Scalar",
    step=0,
    cause="half_overflow",
)
def a_square_in_half_overflows():
    return in_module(lambda x: ((x.abs() + 300).half() ** 2 * 2).float())  # culprit


@failing(
    kind="nan", phase="forward", module="bad", op="aten.div.Tensor", step=0, cause="epsilon_lost"
)
def an_epsilon_that_is_zero_in_half():
    def normalise(x: Tensor) -> Tensor:
        x = (x * 0).half()
        return (x / (x.abs() + 1e-8)).float()  # culprit

    return in_module(normalise)


@failing(
    kind="inf",
    phase="forward",
    module="bad",
    op="aten.bmm.default",
    step=0,
    cause="attention_scores_overflow",
)
def attention_scores_overflow():
    def attend(x: Tensor) -> Tensor:
        q = (x.abs() * 50 + 200).half()[None]
        scores = torch.bmm(q, q.transpose(1, 2))  # culprit
        return scores.softmax(-1).float()

    return in_module(attend)


@failing(
    kind="complex_half",
    phase="forward",
    module="bad",
    op="aten.view_as_complex.default",
    step=0,
    cause="complex_half_birth",
)
def complex_half_from_a_view():
    def mask(x: Tensor) -> Tensor:
        pairs = x.half().reshape(3, 2, 2)
        return torch.view_as_complex(pairs).to(torch.complex64).abs()  # culprit

    return in_module(mask)


@failing(
    kind="complex_half",
    phase="forward",
    module="bad",
    op="aten.complex.default",
    step=0,
    cause="complex_half_birth",
)
def complex_half_from_two_halves():
    def mask(x: Tensor) -> Tensor:
        half = x.half()
        return torch.complex(half, half).to(torch.complex64).abs()  # culprit

    return in_module(mask)


@failing(
    kind="inf",
    phase="forward",
    module="bad",
    op="aten.mul.Tensor",
    step=2,
    cause="complex_half_overflow",
)
def complex_half_that_overflows():
    def run(x: Tensor) -> Tensor:
        half = x.half() * 0 + 300
        spectrum = torch.view_as_complex(half.reshape(3, 2, 2))
        return torch.view_as_real(spectrum * spectrum * 2).float()  # culprit

    return in_module(run, at=2)


@failing(
    kind="inf", phase="forward", module="bad", op="aten.exp.default", step=0, cause="exp_overflow"
)
def exp_in_half():
    return in_module(lambda x: (x.half().abs() + 12).exp().float())  # culprit


@failing(
    kind="inf",
    phase="forward",
    module="bad",
    op="aten.sum.default",
    step=0,
    cause="half_reduction_overflow",
)
def a_sum_in_half():
    return in_module(lambda x: (x.half() * 0 + 60000).sum().float())  # culprit


@failing(
    kind="inf",
    phase="backward",
    module=None,
    node="SqrtBackward0",
    step=0,
    cause="sqrt_gradient_at_zero",
)
def a_scaler_cannot_help():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")

    def step() -> Tensor:
        optimizer.zero_grad()
        y = model(x)
        loss = (y - y.detach()).abs().sqrt().sum()  # culprit
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return model, step


@failing(kind="inf", phase="optimizer", module=None, step=0, cause="loss_scale_collapsed")
def a_collapsed_scale():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e-39)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)  # culprit
        scaler.update()
        return loss.detach()

    return model, step


@failing(
    kind="inf",
    phase="forward",
    module="norm",
    step=0,
    tensor="norm.running_var",
    cause="batch_norm_statistics_overflow",
)
def batch_norm_statistics_overflow_while_the_loop_goes_on():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = linear(), nn.BatchNorm1d(4).half()

        def forward(self, x: Tensor) -> Tensor:
            y = (self.linear(x) * 3000).half()
            with torch.no_grad():
                self.norm(y)  # culprit
            return self.linear(x)

    net, x = Net(), inputs() * 5
    return net, train(net, lambda _: net(x).sum())


@failing(
    kind="nan",
    phase="forward",
    module=None,
    op="aten.nll_loss_forward.default",
    step=1,
    cause="all_targets_ignored",
)
def autocast_with_no_target_left():
    model, x = linear(), inputs()
    seen = []

    def loss(n: int) -> Tensor:
        seen.append(n)
        targets = torch.tensor([1, 2, 3]) if n == 0 else torch.full((3,), -100)
        with torch.autocast(**HALF):
            return F.cross_entropy(model(x), targets)  # culprit

    return model, train(model, loss)
