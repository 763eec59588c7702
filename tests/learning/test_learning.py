"""Loops that do not learn are told with their reason; loops that do are left in peace."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nanhunt
from nanhunt.core.learning import RULES
from tests.learning import broken, healthy
from tests.learning.book import BROKEN, HEALTHY, Data, Program, clipping, loss_of, net, sgd

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


@pytest.mark.parametrize("name", ["accumulation_over_four", "a_warm_up_from_zero"])
def test_a_healthy_loop_of_more_than_a_thousand_steps_is_left_in_peace(name: str) -> None:
    assert hunt(HEALTHY[name](), steps=1100).findings == ()


def changing(at: int) -> Program:
    """Before step `at` nothing is as it should be, from there on everything is."""
    model = net()
    optimizer = sgd(model, lr=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    data, held = Data(), Data()
    batch = held.batch()
    count = 0

    def step() -> torch.Tensor:
        nonlocal count
        good, count = count >= at, count + 1
        if good:
            optimizer.zero_grad()
        optimizer.param_groups[0]["lr"] = 0.05 if good else 0.0
        scheduler._last_lr = [0.05]
        x, y = data.batch() if good else batch
        loss = (model(x) - y).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, step, {}


def test_what_changes_after_hundreds_of_steps_is_seen() -> None:
    causes = {f.cause for f in hunt(changing(at=999), steps=600).findings}
    assert causes == {
        "learning_rate_zero",
        "learning_rate_not_the_schedulers",
        "gradients_never_zeroed",
    }
    assert hunt(changing(at=550), steps=600).findings == ()


def test_a_scaler_that_skips_more_than_512_of_many_updates_is_left_in_peace() -> None:
    model, data = net(), Data()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0, backoff_factor=0.999999)
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        optimizer.zero_grad()
        scaler.scale(loss_of(model, data)).backward()
        if count % 5 < 2 and scaler.get_scale() > 1:  # as of a loss scale that is too large
            model[0].weight.grad[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()

    assert hunt((model, step, {}), steps=1400).findings == ()


def test_a_training_that_has_arrived_is_left_in_peace() -> None:
    model, data = net(), Data()
    optimizer, batch = sgd(model, lr=0.0), data.batch()
    count = 0

    def step() -> torch.Tensor:
        nonlocal count
        optimizer.param_groups[0]["lr"] = 0.1 if count < 10 else 0.0
        count += 1
        optimizer.zero_grad()
        loss = (model(batch[0]) - batch[1]).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    assert hunt((model, step, {}), steps=600).findings == ()


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
