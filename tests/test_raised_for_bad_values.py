"""An exception that a bad value caused comes with the operation that made the value."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

import nanhunt

BAD_AT = 3


def asserted(y: Tensor) -> None:
    assert not torch.isnan(y).any()


def asked(y: Tensor) -> None:
    if y.isnan().any():
        raise ValueError("not a number")


def compared_as_a_number(y: Tensor) -> None:
    if not y.detach().sum().item() < 1e9:
        raise ValueError("diverged")


def compared(y: Tensor) -> None:
    if not (y.sum() < 1e9):
        raise ValueError("diverged")


def all_compared(y: Tensor) -> None:
    assert (y[:, 2:] >= y[:, :2] - 1e9).all(), "no boxes"


def matched(y: Tensor) -> None:
    np.asarray_chkfinite(y.detach().numpy())  # as scipy.optimize and scipy.linalg do


def decomposed(y: Tensor) -> None:
    np.linalg.eigvals(y.detach().numpy()[:4, :4])


def listed(y: Tensor) -> None:
    if any(value != value for row in y.detach().tolist() for value in row):
        raise ValueError("not a number")


def drawn(y: Tensor) -> None:
    torch.multinomial((y - y + 1).abs(), 1)


def distributed(y: Tensor) -> None:
    torch.distributions.Normal(y, 1.0, validate_args=True)


CHECKS: list[Callable[[Tensor], None]] = [
    asserted, asked, compared_as_a_number, compared, all_compared, matched, decomposed, listed,
    drawn, distributed,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS)
def test_what_raises_for_a_bad_value_is_followed_to_its_origin(
    check: Callable[[Tensor], None],
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    optimizer, x, count = SGD(model.parameters(), lr=1e-3), torch.rand(8, 4), itertools.count()

    def step() -> Tensor:
        optimizer.zero_grad()
        y = model(x)
        if next(count) == BAD_AT:
            y = y + (y * 0).log() * 0
        check(y)
        loss = y.pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    with pytest.raises(Exception) as raised:  # noqa: PT011  each check has its own
        nanhunt.hunt(model, step, steps=8, progress=False, trials=False)
    report = nanhunt.last_report()
    assert report is not None
    assert report.finding is not None
    assert (report.finding.step, report.finding.op) == (BAD_AT, "aten.log.default")
    assert "goes back to aten.log.default" in " ".join(raised.value.__notes__)


@pytest.mark.parametrize("operation", [torch.linalg.cholesky, torch.linalg.eigvalsh])
def test_a_decomposition_that_fails_for_a_bad_value_is_followed_to_its_origin(
    operation: Callable[[Tensor], Tensor],
) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 4), torch.rand(4, 4)
    optimizer, factors = SGD(model.parameters(), lr=1e-3), iter([1.0, 1.0, 0.0])

    def step() -> None:
        optimizer.zero_grad()
        operation((model(x).square() * next(factors)).log() * 0 + torch.eye(4)).sum().backward()
        optimizer.step()

    with pytest.raises(torch.linalg.LinAlgError):
        nanhunt.hunt(model, step, steps=3, progress=False, trials=False)
    report = nanhunt.last_report()
    assert report is not None
    assert report.finding is not None
    assert (report.finding.step, report.finding.op) == (2, "aten.log.default")


def test_a_decomposition_of_finite_numbers_that_fails_has_no_origin() -> None:
    model, x = nn.Linear(4, 4), torch.rand(4, 4)

    def step() -> None:
        masked = torch.full((4, 4), -torch.inf).triu(1)
        weights = (model(x) + masked).softmax(-1)
        torch.linalg.cholesky(-weights @ weights.mT)

    with pytest.raises(torch.linalg.LinAlgError) as raised:
        nanhunt.hunt(model, step, steps=1, progress=False)
    assert "goes back to" not in " ".join(raised.value.__notes__)


def test_a_mask_whose_shape_does_not_fit_is_no_origin() -> None:
    model, x = nn.Linear(4, 4), torch.rand(4, 4)

    def step() -> None:
        mask = torch.full((3, 3), -torch.inf).triu(1)
        (model(x) + mask).softmax(-1).sum().backward()

    with pytest.raises(RuntimeError, match="must match the size") as raised:
        nanhunt.hunt(model, step, steps=1, progress=False)
    assert "goes back to" not in " ".join(raised.value.__notes__)


def test_an_exception_of_another_kind_gets_no_origin() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)

    def step() -> None:
        model(torch.rand(8, 4)).sum().backward()
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file") as raised:
        nanhunt.hunt(model, step, steps=2, progress=False)
    assert "goes back to" not in " ".join(raised.value.__notes__)


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError])
def test_an_exception_beside_written_infinities_gets_no_origin(kind: type[Exception]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    optimizer, x = SGD(model.parameters(), lr=1e-3), torch.rand(8, 4)

    def step() -> None:
        optimizer.zero_grad()
        y = model(x)
        y.pow(2).mean().backward()
        optimizer.step()
        scores = y.detach().masked_fill(torch.eye(8, 4) > 0, float("-inf"))
        best, unknown = torch.full((2,), float("inf")), torch.full((3,), float("nan"))
        if (scores > -1e9).any() and (scores[0] < best[0]).any() and unknown[0] != 0:
            raise kind("of another reason")

    with pytest.raises(kind, match="of another reason") as raised:
        nanhunt.hunt(model, step, steps=2, progress=False)
    assert "goes back to" not in " ".join(raised.value.__notes__)


class Link:
    """Fails once, as a connection does; no snapshot takes that back."""

    failed = False


def test_an_exception_that_does_not_come_again_is_no_finding() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    Link.failed = False

    def step() -> None:
        model(torch.rand(8, 4)).sum().backward()
        if not Link.failed:
            Link.failed = True
            raise ConnectionError("once")

    with pytest.raises(ConnectionError, match="once") as raised:
        nanhunt.hunt(model, step, steps=2, progress=False)
    assert "goes back to" not in " ".join(raised.value.__notes__)
    report = nanhunt.last_report()
    assert report is not None
    assert report.findings == ()


SCRIPT = """
import torch
torch.manual_seed(0)
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
x = torch.rand(8, 4)
for number in range(6):
    optimizer.zero_grad()
    y = model(x)
    if number == 3:
        y = y + (y * 0).log() * 0
    loss = y.pow(2).mean()
    if torch.isnan(loss):
        raise ValueError("loss is nan")
    loss.backward()
    optimizer.step()
"""


def run_script(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(text)
    root = Path(nanhunt.__file__).resolve().parent.parent
    return subprocess.run(
        [sys.executable, "-m", "nanhunt", "run", "train.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_script_that_raises_for_a_bad_value_leaves_a_report(tmp_path: Path) -> None:
    ended = run_script(SCRIPT, tmp_path)
    assert "ValueError: loss is nan" in ended.stderr
    assert "nothing went bad" not in ended.stderr
    assert ended.returncode == 3
    finding = nanhunt.load_report(tmp_path / "train.nanhunt.json").finding
    assert finding is not None
    assert finding.step == BAD_AT


BAD = "y + (y * 0).log() * 0"


@pytest.mark.parametrize(
    "refused",
    [
        f"torch.distributions.Categorical(logits={BAD}, validate_args=False).sample()",
        f"torch.distributions.Normal({BAD}, 1.0)",
        f"torch.distributions.MultivariateNormal(y[0], ({BAD}).T @ y, validate_args=False)",
    ],
)
def test_a_script_whose_bad_value_torch_refuses_leaves_a_report(
    refused: str, tmp_path: Path
) -> None:
    ended = run_script(SCRIPT.replace(f"y = {BAD}", refused), tmp_path)
    assert ended.returncode == 3, ended.stderr
    finding = nanhunt.load_report(tmp_path / "train.nanhunt.json").finding
    assert finding is not None
    assert finding.step == BAD_AT
    assert "loop's own code" in finding.explanation


@pytest.mark.parametrize(
    "refused",
    [
        "torch.linalg.cholesky(-torch.eye(3) + 0 * x.mean())",
        "torch.nn.functional.nll_loss(y * float('nan'), torch.zeros(9, dtype=torch.long))",
        "torch.distributions.Normal(y, -1.0)",
    ],
)
def test_a_script_in_which_torch_refuses_for_another_reason_leaves_none(
    refused: str, tmp_path: Path
) -> None:
    ended = run_script(SCRIPT.replace(f"y = {BAD}", refused), tmp_path)
    assert ended.returncode == 1, ended.stderr
    assert "Error" in ended.stderr
    assert not (tmp_path / "train.nanhunt.json").exists()


def test_a_script_that_raises_for_another_reason_leaves_none(tmp_path: Path) -> None:
    """Data hold a NaN, the best loss begins at infinity, and a part thrown away is NaN."""
    other = SCRIPT.replace("y = y + (y * 0).log() * 0", "raise ValueError('of another reason')")
    beside = (
        "x[0, 0], best = float('nan'), torch.tensor(float('inf'))\n"
        "root = torch.rand(3, requires_grad=True)\n"
        "part = (root - 2).sqrt()\n"
        "x = x.nan_to_num()\n"
    )
    ended = run_script(other.replace("for number", beside + "for number"), tmp_path)
    assert "ValueError: of another reason" in ended.stderr
    assert ended.returncode == 1
    assert not (tmp_path / "train.nanhunt.json").exists()
