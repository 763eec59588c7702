"""Every case: the program really does what it claims, and the hunt says exactly what it is."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import nanhunt
from tests.cases import backward, data, forward, half, healthy, optimizer, places, state, why
from tests.cases.book import CASES, Case

# They fill CASES.
assert all((backward, data, forward, half, healthy, optimizer, places, state, why))
pytestmark = pytest.mark.filterwarnings(r"ignore:std\(\):UserWarning")
FAILING = [case for case in CASES.values() if case.expected is not None]
HEALTHY = [case for case in CASES.values() if case.expected is None]


def build(case: Case) -> tuple[Any, Any, dict[str, Any]]:
    torch.manual_seed(0)
    model, step, *options = case.build()
    return model, step, options[0] if options else {}


def parameters(model: Any) -> list[torch.Tensor]:
    roots = list(model.values()) if isinstance(model, dict) else [model]
    return [t for root in roots for t in (*root.parameters(), *root.buffers())]


def test_there_are_enough_cases() -> None:
    assert len(FAILING) >= 50
    assert len(HEALTHY) >= 15


@pytest.mark.parametrize("case", FAILING, ids=lambda case: case.name)
def test_the_place_is_exact(case: Case) -> None:
    model, step, options = build(case)
    assert case.expected is not None
    raises = case.expected.get("raises")
    if raises:
        with pytest.raises(raises):
            nanhunt.hunt(model, step, steps=case.steps, progress=False, **options)
        report = nanhunt.last_report()
        assert report is not None
    else:
        report = nanhunt.hunt(model, step, steps=case.steps, progress=False, **options)
    finding = report.finding
    assert finding is not None, "nothing was found"
    expected = {k: v for k, v in case.expected.items() if k not in ("raises", "silent")}
    assert {key: getattr(finding, key) for key in expected} == expected
    lines, first = inspect.getsourcelines(case.build)
    marked = [first + i for i, line in enumerate(lines) if line.rstrip().endswith("# culprit")]
    if marked:
        assert finding.source is not None
        assert finding.source.file == inspect.getfile(case.build)
        assert finding.source.line in marked, finding.source
    if finding.kind != "complex_half":
        assert report.replay == "bit_exact"


@pytest.mark.parametrize("case", HEALTHY, ids=lambda case: case.name)
def test_nothing_is_found_and_nothing_changed(case: Case) -> None:
    model, step, options = build(case)
    report = nanhunt.hunt(model, step, steps=case.steps, progress=False, **options)
    assert report.findings == ()
    watched = [t.detach().clone() for t in parameters(model)]
    model, step, options = build(case)
    batches = iter(options.get("data", ()))
    for _ in range(case.steps):
        step(*([next(batches)] if "data" in options else []))
    for one, other in zip(watched, parameters(model), strict=True):
        assert torch.equal(torch.nan_to_num(one), torch.nan_to_num(other.detach()))


def _bad(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_bad(v) for k, v in value.items() if "loss" in str(k))
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, torch.Tensor) and value.is_sparse:
        value = value.coalesce().values()
    return isinstance(value, torch.Tensor) and not bool(torch.isfinite(value).all())


@pytest.mark.parametrize(
    "case",
    [c for c in FAILING if c.expected and c.expected["kind"] not in ("complex_half",)],
    ids=lambda case: case.name,
)
def test_the_program_really_fails_then_and_not_before(case: Case) -> None:
    model, step, options = build(case)
    assert case.expected is not None
    seen: list[str] = []

    def before(chosen: Any, *_: Any) -> None:
        seen.extend("g" for g in chosen.param_groups for p in g["params"] if _bad(p.grad))

    def after(chosen: Any, *_: Any) -> None:
        seen.extend("p" for g in chosen.param_groups for p in g["params"] if _bad(p.detach()))
        seen.extend("s" for s in chosen.state.values() for v in s.values() if _bad(v))

    handles = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    original = torch.autograd.backward

    def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
        seen.extend("l" for t in ([tensors] if torch.is_tensor(tensors) else tensors) if _bad(t))
        original(tensors, *args, **kwargs)

    torch.autograd.backward = backward
    batches = iter(options.get("data", ()))
    try:
        for number in range(case.expected["step"] + 1):
            before_step = list(seen)
            arguments = [next(batches)] if "data" in options else []
            returned = None
            if case.expected.get("raises") and number == case.expected["step"]:
                with pytest.raises(case.expected["raises"]):
                    step(*arguments)
                seen.append("raised")
            else:
                returned = step(*arguments)
            if _bad(returned):
                seen.append("returned")
            marks = ("running_mean", "running_var", "codes", "scale")
            roots = list(model.values()) if isinstance(model, dict) else [model]
            tensors = [p for root in roots for p in root.parameters()]
            seen.extend("p" for p in tensors if _bad(p.detach()) or _bad(p.grad))
            named = [(n, b) for root in roots for n, b in root.named_buffers()]
            seen.extend("b" for n, b in named if n.rpartition(".")[2] in marks and _bad(b))
            if number < case.expected["step"]:
                assert seen == before_step == [], f"bad already in step {number}"
        assert seen or case.expected.get("silent"), "nothing went bad"
    finally:
        torch.autograd.backward = original
        for handle in handles:
            handle.remove()
