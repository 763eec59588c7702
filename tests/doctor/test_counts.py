"""The number of batches that BatchNorm has seen, stored in whatever way."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import nanhunt
from tests.doctor import files


@pytest.mark.parametrize("value", [math.inf, math.nan, -3.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e5m2, torch.float64])
def test_a_count_of_batches_that_a_cast_has_spoilt_is_told_and_reset(
    dtype: torch.dtype, value: float, tmp_path: Path
) -> None:
    """More than 65,504 batches in a state dict that was cast to half."""
    statistics = {"n.running_mean": torch.ones(2), "n.running_var": torch.ones(2)}
    count = torch.tensor(value).to(dtype)
    path = files.torch_file(tmp_path / "x.pt", {**statistics, "n.num_batches_tracked": count})
    found = nanhunt.doctor(path, fix=True)
    (told,) = [p for p in found.problems if p.severity == "warning"]
    assert (told.kind, told.key) == ("batch_count", "n.num_batches_tracked")
    assert torch.load(tmp_path / "x_FIXED.pt", weights_only=True)["n.num_batches_tracked"] == 0


@pytest.mark.parametrize(
    "count",
    [
        torch.tensor(-3.0).to(torch.complex64),
        torch.tensor(3, dtype=torch.uint16),
        torch.tensor(3.0).to(torch.float8_e4m3fn),
        torch.zeros(1, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    ],
    ids=lambda count: str(count.dtype),
)
def test_a_count_of_batches_of_any_dtype_does_not_hinder_the_rest(
    count: Tensor, tmp_path: Path
) -> None:
    statistics = {"n.running_mean": torch.tensor([1.0, math.nan]), "n.running_var": torch.ones(2)}
    path = files.torch_file(tmp_path / "x.pt", {**statistics, "n.num_batches_tracked": count})
    nanhunt.doctor(path, fix=True)
    assert torch.load(tmp_path / "x_FIXED.pt", weights_only=True)["n.running_mean"].tolist() == [
        1.0,
        0.0,
    ]


def test_a_sparse_count_of_batches_does_not_hinder_the_verdict(tmp_path: Path) -> None:
    count = torch.tensor([-1.0]).to_sparse()
    tree = {"n.running_mean": torch.tensor([math.nan]), "n.num_batches_tracked": count}
    found = nanhunt.doctor(files.torch_file(tmp_path / "x.pt", tree))
    assert [problem.key for problem in found.problems] == ["n.running_mean"]
