"""Failures of the forward pass: operations inside a module, one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.cases.book import failing
from tests.cases.common import in_module


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
    kind="inf", phase="forward", module="bad", op="aten.mul.Tensor", step=0, cause="not_established"
)
def a_mask_that_is_multiplied():
    def attended(x: Tensor) -> Tensor:
        mask = torch.full((3, 3), float("-inf")).triu(1)
        scores = (x @ x.t() - 9) * mask.masked_fill(mask == 0, 1)  # culprit
        return scores.softmax(-1) @ x

    return in_module(attended)


@failing(
    kind="inf", phase="forward", module="bad", op="aten.sub.Tensor", step=0, cause="not_established"
)
def a_maximum_of_nothing_that_is_subtracted():
    def weights(x: Tensor) -> Tensor:
        top = x.masked_fill(torch.eye(3, 4) > 0, float("-inf")).detach()
        return (x - top.amin()).exp()  # culprit

    return in_module(weights)


@failing(
    kind="inf", phase="forward", module="bad", op="aten.exp.default", step=0, cause="exp_overflow"
)
def an_overflow_beside_a_mask():
    def run(x: Tensor) -> Tensor:
        scores = (x * 1e3).masked_fill(torch.eye(3, 4) > 0, float("-inf"))
        weights = scores.exp()  # culprit
        return weights * 1e-30

    return in_module(run)
