"""Reports as data: they survive JSON to the bit, and bad files are refused in words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nanhunt
from nanhunt.errors import ReportFormatError
from nanhunt.records.histogram import Bin, Histogram
from nanhunt.records.report import Finding, Frame, Report, Source, TensorStats, Trial
from tests.render.reports import REPORTS

NUMBERS = st.none() | st.floats(allow_nan=False)
STATS = st.builds(
    TensorStats,
    name=st.text(max_size=5),
    shape=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    dtype=st.sampled_from(["float16", "complex32"]),
    device=st.just("cpu"),
    numel=st.integers(0, 99),
    absmax=NUMBERS,
    first_bad=st.none() | st.tuples(st.integers(0, 9)),
    histogram=st.none()
    | st.builds(
        Histogram,
        dtype=st.just("float16"),
        numel=st.integers(0, 99),
        bins=st.lists(st.builds(Bin, *3 * [st.integers(-30, 99)]), max_size=2).map(tuple),
        low=NUMBERS,
    ),
)
SOURCES = st.builds(
    Source,
    st.text(max_size=5),
    st.integers(1, 99),
    st.text(max_size=9),
    cell=st.none() | st.just(3),
)
FINDINGS = st.builds(
    Finding,
    severity=st.sampled_from(["critical", "warning"]),
    kind=st.sampled_from(["nan", "inf", "complex_half"]),
    phase=st.just("forward"),
    step=st.integers(0, 999),
    module=st.none() | st.text(max_size=5),
    call=st.none() | st.integers(1, 9) | st.just("recompute"),
    source=st.none() | SOURCES,
    stack=st.lists(SOURCES, max_size=2).map(tuple),
    inputs=st.lists(STATS, max_size=2).map(tuple),
    frames=st.lists(
        st.builds(Frame, st.text(max_size=4), st.just(1), st.just("Linear"), STATS), max_size=2
    ).map(tuple),
    trials=st.lists(
        st.builds(Trial, st.text(max_size=4), st.none() | st.booleans(), NUMBERS), max_size=2
    ).map(tuple),
)
ALL = st.builds(
    Report,
    steps_run=st.integers(0, 999),
    findings=st.lists(FINDINGS, max_size=3).map(tuple),
    costs=st.dictionaries(st.text(max_size=4), st.floats(allow_nan=False), max_size=2),
)


@settings(max_examples=100, deadline=None)
@given(ALL)
def test_a_report_survives_json(report: Report) -> None:
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert Report.from_dict(json.loads(text)) == report


def test_a_report_of_a_hunt_reads_its_own_dict() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        (model(torch.ones(3, 2)) * 0).log().mean().backward()
        optimizer.step()

    report = nanhunt.hunt(model, step, steps=2, trials=False, progress=False)
    assert not report.healthy
    assert Report.from_dict(report.to_dict()) == report


def test_numbers_that_json_lacks_are_words() -> None:
    report = Report(1, costs={"a": float("nan"), "b": float("-inf")})
    data = report.to_dict()
    assert data["costs"] == {"a": "nan", "b": "-inf"}
    assert Report.from_dict(data).costs["b"] == float("-inf")


def test_a_saved_report_is_read_back(tmp_path: Path) -> None:
    path = REPORTS["trials"].save(tmp_path / "run7.json")
    assert path.name == "run7.nanhunt.json"
    assert str(nanhunt.load_report(path)) == str(REPORTS["trials"])


def test_healthy_means_no_critical_finding() -> None:
    assert REPORTS["healthy"].healthy
    assert REPORTS["healthy"].finding is None
    assert not REPORTS["forward"].healthy


def test_a_report_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        REPORTS["forward"].steps_run = 3  # type: ignore[misc]


GOOD = REPORTS["forward"].to_dict()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "not a nanhunt report"),
        ({}, "not a nanhunt report"),
        ({**GOOD, "version": 9}, "version 9"),
        ({**GOOD, "steps_run": "many"}, r"report\.steps_run: str"),
        ({**GOOD, "findings": {}}, r"report\.findings: dict"),
        ({**GOOD, "findings": [{"kind": 3}]}, r"report\.findings\[0\]\.kind: int"),
        ({**GOOD, "findings": [{}]}, "severity"),
        ({**GOOD, "costs": {"a": "fast"}}, r"report\.costs\.a: str"),
        ({k: v for k, v in GOOD.items() if k != "steps_run"}, "steps_run"),
    ],
)
def test_what_is_no_report_is_refused_with_the_place(data: Any, words: str) -> None:
    with pytest.raises(ReportFormatError, match=words):
        Report.from_dict(data)


@pytest.mark.parametrize("text", ["", "{", "\x00", json.dumps(GOOD)[:-40]])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.nanhunt.json"
    path.write_text(text)
    with pytest.raises(ReportFormatError, match=r"broken\.nanhunt\.json"):
        nanhunt.load_report(path)
