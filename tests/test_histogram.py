"""Histograms counted on the device agree with NumPy on the same data."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanhunt.core.tensors import binning
from nanhunt.core.tensors.binning import histogram
from nanhunt.records.histogram import Histogram

REAL = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
FLOAT8 = [
    getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    if hasattr(torch, name)
]
COMPLEX = [torch.complex64, torch.complex32, torch.complex128]
DTYPES = [*REAL, *FLOAT8, *COMPLEX]
SPECIAL = [0.0, -0.0, math.nan, math.inf, -math.inf, 1e-45, -6e-8, 1e-40, 5e-324, 65504.0, 448.0]

numbers = st.one_of(
    st.sampled_from(SPECIAL), st.floats(), st.floats(-1e3, 1e3), st.floats(-1e-5, 1e-5)
)


def by_numpy(tensor: torch.Tensor) -> dict[str, object]:
    """Everything a histogram says, counted by NumPy in float64."""
    dtype = tensor.dtype.to_real() if tensor.dtype.is_complex else tensor.dtype
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    values = real.to(torch.float64).numpy().ravel()
    tiny = torch.finfo(dtype).smallest_normal
    finite = values[np.isfinite(values)]
    normal = finite[np.abs(finite) >= tiny]
    exponents = np.frexp(normal)[1] - 1  # frexp's mantissa lies in [0.5, 1)
    negative = Counter(exponents[normal < 0].tolist())
    positive = Counter(exponents[normal > 0].tolist())
    return {
        "bins": {k: (negative[k], positive[k]) for k in set(negative) | set(positive)},
        "nan": int(np.isnan(values).sum()),
        "posinf": int((values == np.inf).sum()),
        "neginf": int((values == -np.inf).sum()),
        "zeros": int((values == 0).sum()),
        "subnormal": int(((finite != 0) & (np.abs(finite) < tiny)).sum()),
        "low": float(finite.min()) if finite.size else None,
        "high": float(finite.max()) if finite.size else None,
        "numel": values.size,
    }


def said(found: Histogram) -> dict[str, object]:
    return {
        "bins": {b.exponent: (b.negative, b.positive) for b in found.bins},
        **{name: getattr(found, name) for name in ("nan", "posinf", "neginf", "zeros")},
        **{name: getattr(found, name) for name in ("subnormal", "low", "high", "numel")},
    }


def tensor_of(values: list[float], dtype: torch.dtype) -> torch.Tensor:
    if not values:
        return torch.empty(0, dtype=dtype)
    if dtype.is_complex:
        pairs = torch.tensor(values + values[::-1], dtype=dtype.to_real()).view(2, -1)
        return torch.view_as_complex(pairs.T.contiguous())
    return torch.tensor(values, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.lists(numbers, min_size=0, max_size=40))
def test_every_count_agrees_with_numpy(dtype: torch.dtype, values: list[float]) -> None:
    tensor = tensor_of(values, dtype)
    assert said(histogram(tensor)) == by_numpy(tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way", ["together", "one by one", "as on an accelerator"])
def test_small_and_large_tensors_and_those_on_an_accelerator_are_counted_alike(
    dtype: torch.dtype, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = [
        tensor_of([*SPECIAL, *torch.randn(200).tolist()], dtype),
        tensor_of([1.0], dtype),
        tensor_of([math.nan, math.inf], dtype),
    ]

    def without_looking(keys: torch.Tensor, layout: Any) -> torch.Tensor:
        bins = layout.bins
        return torch.histc(keys.to(torch.float32), bins=bins, min=0, max=bins).long()

    if way != "together":
        monkeypatch.setattr(binning, "SMALL", 0)
    if way == "as on an accelerator":
        monkeypatch.setattr(binning, "_bin_counts", without_looking)
    found = binning.read([counted for t in tensors if (counted := binning.count(t))])
    assert [said(each) for each in found] == [by_numpy(tensor) for tensor in tensors]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_numbers_are_counted_exactly(dtype: torch.dtype) -> None:
    real = dtype.to_real() if dtype.is_complex else dtype
    values = torch.randn(300_000, dtype=torch.float64)
    values[::3] = 0
    values[1::7] *= torch.finfo(real).smallest_normal
    tensor = values.to(real)
    tensor = torch.view_as_complex(tensor.view(-1, 2)) if dtype.is_complex else tensor
    found, exact = said(histogram(tensor)), by_numpy(tensor)
    assert {**found, "bins": 0} == {**exact, "bins": 0}
    assert said(histogram(tensor, sampled_beyond=10**9)) == exact


def test_the_memory_to_work_in_passes_from_tensor_to_tensor() -> None:
    scratch: binning.Scratch = {}
    tensors = []
    for size in (5_000, 300_000, 20_000):
        for dtype in REAL:
            values = torch.randn(size, dtype=torch.float64)
            values[::3] = 0
            values[1::7] *= torch.finfo(dtype).smallest_normal
            tensors.append(values.to(dtype))
    counted = [binning.count(tensor, 10**9, scratch) for tensor in tensors]
    found = binning.read([each for each in counted if each is not None])
    assert [said(each) for each in found] == [by_numpy(tensor) for tensor in tensors]
    assert sum(room.nbytes for room in scratch.values()) <= 4 << 20


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_beyond_the_limit_bins_are_sampled_and_the_rest_stays_exact(dtype: torch.dtype) -> None:
    tensor = torch.randn(10_007, dtype=torch.float64).to(dtype)
    tensor[1:9] = torch.tensor([math.nan, math.inf, -math.inf, 0, 0, 5e-39, 900, -901])
    found, exact = histogram(tensor, sampled_beyond=1000), by_numpy(tensor)
    assert found.sampled
    assert 900 <= found.binned <= 1000
    for name in ("nan", "posinf", "neginf", "zeros", "subnormal", "low", "high", "numel"):
        assert getattr(found, name) == exact[name], name
    assert 0.98 * found.binned <= sum(b.negative + b.positive for b in found.bins) <= found.binned


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("kind", ["integers", "meta", "quantized"])
def test_what_has_no_numbers_to_read_says_so(kind: str) -> None:
    made = {
        "integers": lambda: torch.arange(5),
        "meta": lambda: torch.empty(3, device="meta"),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    }
    found = histogram(made[kind]())
    assert found.numel == 0
    assert "no floating-point values can be read" in found.note


def test_sparse_strided_and_expanded_tensors_are_counted() -> None:
    strided = torch.randn(6, 8).t()[::2]
    assert said(histogram(strided)) == by_numpy(strided)
    wide = torch.tensor([3.0]).expand(7)
    assert histogram(wide).bins[0].positive == 7
    sparse = torch.eye(4).to_sparse()
    assert histogram(sparse).numel == 4, "stored values"


def test_the_sum_of_two_histograms_is_that_of_both_tensors() -> None:
    first, second = torch.randn(50), torch.randn(70) * 1e-40
    both = histogram(first) + histogram(second)
    assert said(both) == by_numpy(torch.cat([first, second]))
    assert both.tensors == 2


def test_counting_leaves_tensor_random_numbers_and_graph_alone() -> None:
    tensor = torch.randn(100, requires_grad=True)
    before, version, state = tensor.detach().clone(), tensor._version, torch.get_rng_state()
    histogram(tensor)
    assert torch.equal(tensor, before)
    assert tensor._version == version
    assert torch.equal(torch.get_rng_state(), state)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        assert said(histogram(tensor)) == by_numpy(tensor.detach())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_on_the_gpu_counts_are_the_same(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    tensor = tensor_of([*SPECIAL, *torch.randn(100_000).tolist()], dtype)
    assert said(histogram(tensor.cuda())) == by_numpy(tensor)
