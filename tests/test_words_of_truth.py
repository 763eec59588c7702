"""Words say what is true: green means watched to the end, and a line is whose it is said to be."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import SGD
from torch.overrides import TorchFunctionMode

import nanhunt
from nanhunt.records.preflight import Preflight

BAD_AT = 3
Step = Callable[[], Tensor]


def training(loss_of: Callable[[Tensor, int], Tensor]) -> tuple[nn.Module, SGD, Step]:
    """Trains a linear layer; what is done with its output in step n is given."""
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    optimizer, x, count = SGD(model.parameters(), lr=1e-3), torch.randn(8, 4), itertools.count()

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(x), next(count))
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step


def hunted(loss_of: Callable[[Tensor, int], Tensor], steps: int = 8) -> nanhunt.Report:
    model, _, step = training(loss_of)
    return nanhunt.hunt(model, step, steps=steps, progress=False)


def mean(y: Tensor, _: int) -> Tensor:
    return y.pow(2).mean()


# -- green has one meaning ------------------------------------------------------------------------


def nothing_run() -> Any:
    model, _, step = training(mean)
    with nanhunt.Hunt(model, step, progress=False) as hunt:
        return hunt.report


def no_data() -> Any:
    model, _, step = training(mean)
    return nanhunt.hunt(model, lambda batch: step(), data=[], progress=False)


def interrupted() -> Any:
    def loss_of(y: Tensor, number: int) -> Tensor:
        if number == BAD_AT:
            raise KeyboardInterrupt
        return mean(y, number)

    return hunted(loss_of)


def raising(y: Tensor, number: int) -> Tensor:
    if number == BAD_AT:
        raise ValueError("mine")
    return mean(y, number)


def after_an_exception() -> Any:
    with pytest.raises(ValueError, match="mine"):
        hunted(raising)
    return nanhunt.last_report()


def guard_after_an_exception() -> Any:
    model, optimizer, step = training(raising)
    with contextlib.suppress(ValueError), nanhunt.guard(model, optimizer, bundle=None) as guard:
        for _ in range(6):
            step()
    return guard.report


@pytest.mark.parametrize(
    "report_of", [nothing_run, no_data, interrupted, after_an_exception, guard_after_an_exception]
)
def test_what_was_not_watched_to_its_end_is_not_green(report_of: Callable[[], Any]) -> None:
    report = report_of()
    assert not report.healthy
    assert "✓" not in str(report)
    assert "Healthy" not in str(report)


def test_steps_watched_to_their_end_are_green() -> None:
    report = hunted(mean)
    assert report.healthy
    assert str(report).startswith("✓ Healthy: 8 steps")


# -- overflows that were swallowed ----------------------------------------------------------------


def by_rsqrt(y: Tensor) -> Tensor:
    return (y * torch.rsqrt((y * 1e25).pow(2).mean() + 1)).mean() + y.mean()


def by_clamp(y: Tensor) -> Tensor:
    return (y * 1e25).pow(2).clamp(max=10.0).mean() + y.mean()


def by_reciprocal(y: Tensor) -> Tensor:
    frequency = 1 / (torch.full((1,), 1e4) ** torch.tensor([12.0]))
    return (y * frequency).mean() + y.mean()


@pytest.mark.parametrize("begins", [0, BAD_AT])
@pytest.mark.parametrize(
    ("swallow", "line"), [(by_rsqrt, "rsqrt("), (by_clamp, "clamp("), (by_reciprocal, "1e4) **")]
)
def test_a_swallowed_overflow_is_a_warning_with_its_line(
    swallow: Callable[[Tensor], Tensor], line: str, begins: int
) -> None:
    report = hunted(lambda y, n: swallow(y) if n >= begins else y.mean(), steps=12)
    (warning,) = report.findings
    assert (warning.severity, warning.kind) == ("warning", "inf")
    assert warning.source is not None
    assert line in warning.source.code


def by_mask(y: Tensor) -> Tensor:
    scores = y.masked_fill(torch.eye(8, 4) > 0, float("-inf"))
    return scores.clamp(min=-1e4).softmax(-1).mean() + y.mean()


def by_zero(y: Tensor) -> Tensor:
    return ((y.detach().abs() * 0) ** -1).clamp(max=10.0).mean() + y.mean()


def by_growth(y: Tensor) -> Tensor:
    return (y.detach() * 1e3).exp().clamp(max=5.0).mean() + y.mean()


def by_saturation(y: Tensor) -> Tensor:
    return nn.functional.relu6((y.detach() * 1e25).pow(2)).mean() + y.mean()


@pytest.mark.parametrize("bound", [by_mask, by_zero, by_growth, by_saturation])
def test_an_infinity_that_is_bounded_on_purpose_is_no_warning(
    bound: Callable[[Tensor], Tensor],
) -> None:
    assert hunted(lambda y, _: bound(y), steps=12).findings == ()


def test_a_norm_that_is_only_logged_is_no_warning() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 4), torch.randn(8, 4)
    optimizer = SGD(model.parameters(), lr=1e-3)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
        optimizer.step()
        return loss

    assert nanhunt.hunt(model, step, steps=12, progress=False).findings == ()


@pytest.mark.parametrize("begins", [0, BAD_AT])
def test_a_gradient_norm_that_overflows_is_a_warning_with_its_line(begins: int) -> None:
    torch.manual_seed(0)
    model, x, count = nn.Linear(4, 4), torch.randn(8, 4), itertools.count()
    optimizer = SGD(model.parameters(), lr=1e-3)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).mean() * (1e21 if next(count) >= begins else 1)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    findings = nanhunt.hunt(model, step, steps=12, progress=False).findings
    lines = [f.source.code for f in findings if f.severity == "warning" and f.source is not None]
    assert any("clip_grad_norm_" in line for line in lines)


# -- preflight ------------------------------------------------------------------------------------


class Part(nn.Module):
    gain: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("gain", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.gain


def preflight_of(spoil: str = "", log: bool = False) -> Preflight:
    torch.manual_seed(0)
    model, x = Part(), torch.randn(8, 4)
    optimizer = SGD(model.parameters(), lr=0.01)
    with torch.no_grad():
        if spoil:
            model.get_parameter(spoil)[0] = float("nan")

    def step() -> None:
        optimizer.zero_grad()
        model(x).pow(2).mean().backward()
        if log:
            with torch.no_grad():
                torch.stack([p.norm() for p in model.parameters()]).sum().item()
        optimizer.step()

    return nanhunt.preflight(model, step)


def test_a_preflight_of_bad_parameters_is_not_green() -> None:
    told = preflight_of(spoil="unused.weight")
    assert "parameter_not_finite" in {fact.kind for fact in told.warnings}
    assert "✓" not in str(told).splitlines()[0]


def test_a_line_that_only_logs_is_not_why_parameters_have_no_gradient() -> None:
    facts = {fact.kind: fact for fact in preflight_of(log=True).facts}
    assert "parameters_no_grad" not in facts
    assert facts["parameters_unused"].names == ("unused.weight", "unused.bias")


def test_a_wrapped_optimizer_counts_once() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 1), torch.randn(8, 4)
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(layer, SGD(layer.parameters(), lr=0.01))

    def step() -> None:
        optimizer.zero_grad()
        accelerator.backward(model(x).pow(2).mean())
        optimizer.step()

    assert nanhunt.preflight(model, step).warnings == ()


# -- whose data, whose line -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [torch.from_numpy, torch.tensor, torch.as_tensor])
def test_an_array_that_is_bad_is_data(make: Callable[[Any], Tensor]) -> None:
    def loss_of(y: Tensor, number: int) -> Tensor:
        weights = np.ones((8, 4), dtype=np.float32)
        if number == BAD_AT:
            weights[5, 1] = np.nan
        return (y * make(weights)).pow(2).mean()

    finding = hunted(loss_of).finding
    assert finding is not None
    assert (finding.step, finding.phase) == (BAD_AT, "data")
    assert finding.cause != "written_constant"


def test_a_mask_from_an_array_is_no_finding() -> None:
    def loss_of(y: Tensor, number: int) -> Tensor:
        mask = np.where(np.tri(8, 4, 3) > 0, 0.0, -np.inf).astype(np.float32)
        return (y + torch.from_numpy(mask)).softmax(-1).pow(2).mean()

    assert hunted(loss_of, steps=30).findings == ()


def test_a_number_in_the_program_is_a_constant() -> None:
    finding = hunted(lambda y, n: (y * torch.tensor(1.0 if n < BAD_AT else np.nan)).mean()).finding
    assert finding is not None
    assert (finding.step, finding.cause) == (BAD_AT, "written_constant")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An installed package whose loss takes the logarithm of whatever it gets."""
    package = tmp_path / "lib" / "site-packages" / "fastlosses"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from fastlosses.utils import log_loss\n")
    (package / "utils.py").write_text("def log_loss(p):\n    return -p.log().mean()\n")
    monkeypatch.syspath_prepend(str(package.parent))
    yield importlib.import_module("fastlosses")
    for name in ("fastlosses", "fastlosses.utils"):
        sys.modules.pop(name, None)


def test_the_line_is_the_users_and_the_library_stands_beside_it(library: Any) -> None:
    def loss_of(y: Tensor, number: int) -> Tensor:
        likely = y.sigmoid() * (torch.arange(8)[:, None] != (5 if number == BAD_AT else -1))
        return library.log_loss(likely)

    report = hunted(loss_of)
    assert report.finding is not None
    assert report.finding.source is not None
    assert report.finding.source.file == __file__
    assert "library.log_loss(likely)" in report.finding.source.code
    assert "fastlosses" in str(report), "the package is named, not a bare utils.py"


def test_no_change_to_a_file_of_a_library_is_proposed(library: Any) -> None:
    def loss_of(y: Tensor, number: int) -> Tensor:
        likely = y.sigmoid() * (torch.arange(8)[:, None] != (5 if number == BAD_AT else -1))
        return library.log_loss(likely)

    finding = hunted(loss_of).finding
    assert finding is not None
    assert finding.trials
    assert not [trial for trial in finding.trials if "site-packages" in trial.file]


def test_a_line_of_a_library_is_told_where_no_line_is_the_users(library: Any) -> None:
    model, _, step = training(mean)
    library.model, library.step, library.number = model, step, itertools.count()
    code = (
        "def run():\n    p = step().detach() * 0\n    return p.log() if next(number) == 3 else p\n"
    )
    folder = Path(library.__file__).parent
    (folder / "loop.py").write_text(code)
    exec(compile(code, str(folder / "loop.py"), "exec"), vars(library))
    finding = nanhunt.hunt(model, library.run, steps=8, progress=False, trials=False).finding
    assert finding is not None
    assert finding.source is not None
    assert finding.source.file == str(folder / "loop.py")


class PassingOn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Dividing(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result / 0 if func is torch.log else result


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        (PassingOn, "loss = (y.square() + 1).log().mean() / 0"),
        (Dividing, "return result / 0 if func is torch.log else result"),
    ],
)
def test_the_line_is_the_callers_where_a_mode_only_passes_on(mode: Any, line: str) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(3, 1), torch.rand(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        with mode():
            y = model(x)
            y = torch.log(y.square() + 1)
            loss = (y.square() + 1).log().mean() / 0
        loss.backward()
        optimizer.step()

    report = nanhunt.hunt(model, step, steps=1, progress=False)
    assert report.finding is not None
    assert report.finding.source is not None
    assert report.finding.source.code == line
