"""Loops that do not learn are told with their reason; loops that do are left in peace."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nanhunt
from nanhunt.core.learning import RULES
from tests.learning import broken, healthy
from tests.learning.book import BROKEN, HEALTHY, Program, clipping

assert all((broken, healthy))  # they fill the two lists
STEPS = 40


def hunt(program: Program, steps: int = STEPS) -> nanhunt.Report:
    model, step, options = program
    return nanhunt.hunt(model, step, steps=steps, progress=False, **options)


def test_there_are_enough_loops() -> None:
    assert len(BROKEN) >= 15
    assert len(HEALTHY) >= 15
    causes = {cause for _, cause in BROKEN.values()} | {"clipped_before_unscaling"}
    assert causes == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize("name", BROKEN)
def test_a_loop_that_does_not_learn_is_told_with_its_reason(name: str) -> None:
    build, cause = BROKEN[name]
    report = hunt(build())
    assert not report.healthy
    assert {f.kind for f in report.findings} == {"not_training"}
    assert [f.cause for f in report.findings if f.severity == "critical"] == [cause]
    finding = report.finding
    assert finding is not None
    assert finding.phase == "loop"
    assert any(character.isdigit() for character in finding.explanation), "numbers are told"


def test_clipping_before_unscaling_is_a_warning_with_its_line() -> None:
    report = hunt(clipping(before=True))
    assert report.healthy
    (finding,) = report.findings
    assert (finding.severity, finding.cause) == ("warning", "clipped_before_unscaling")
    assert finding.source is not None
    assert "clip_grad_norm_" in finding.source.code


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_loop_is_left_in_peace(name: str) -> None:
    report = hunt(HEALTHY[name]())
    assert report.findings == ()
    assert report.steps_run == STEPS


@pytest.mark.parametrize("name", BROKEN)
def test_three_steps_are_too_few_for_a_judgement(name: str) -> None:
    assert hunt(BROKEN[name][0](), steps=3).findings == ()


@pytest.mark.parametrize("name", [*BROKEN, *HEALTHY])
def test_the_training_is_the_same_to_the_bit(name: str) -> None:
    ends: list[list[Any]] = []
    for watched in (True, False):
        build = BROKEN[name][0] if name in BROKEN else HEALTHY[name]
        model, step, options = build()
        if watched:
            nanhunt.hunt(model, step, steps=12, progress=False, **options)
        else:
            for _ in range(12):
                step()
        roots = list(model.values()) if isinstance(model, dict) else [model]
        ends.append([p.detach().clone() for root in roots for p in root.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
