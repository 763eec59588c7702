"""The five stories: each breaks as it says when run bare, and the hunt says what is true."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import nanhunt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

from stories import (
    audio_codec,
    fourier_inpainting,
    localiser,
    resumed_diffusion,
    speech_enhancer,
)

EXPECTED = [
    (
        speech_enhancer,
        {"kind": "inf", "phase": "forward", "step": 12, "module": "generator"},
        ("aten.mul.Tensor", "refined = mask * mask"),
    ),
    (
        audio_codec,
        {"kind": "inf", "phase": "forward", "step": 0, "module": ""},
        ("aten.sum.dim_IntList", "commitment = difference.square().sum(-1).float().mean()"),
    ),
    (
        fourier_inpainting,
        {"kind": "inf", "phase": "forward", "step": 6, "module": "scales.0.ffc"},
        ("aten._to_copy.default", "mixed = mixed.half()"),
    ),
    (
        resumed_diffusion,
        {"kind": "inf", "phase": "forward", "step": 3, "module": None},
        ("aten.exp.default", "return torch.exp(torch.sqrt(time)).float()"),
    ),
]
STORIES = [speech_enhancer, audio_codec, fourier_inpainting, localiser, resumed_diffusion]


def hunt(story: Any) -> nanhunt.Report:
    return nanhunt.hunt(story.model, story.step_fn, steps=40, progress=False)


def value(loss: Any) -> float:
    if isinstance(loss, dict):
        return sum(value(part) for part in loss.values())
    return float(loss)


@pytest.mark.parametrize(("story", "place", "culprit"), EXPECTED)
def test_the_hunt_names_what_is_true(
    story: Any, place: dict[str, Any], culprit: tuple[str, str]
) -> None:
    finding = hunt(story.build(broken=True)).finding
    assert finding is not None
    assert {key: getattr(finding, key) for key in place} == place
    assert finding.source is not None
    assert (finding.op, finding.source.code) == culprit
    assert Path(finding.source.file) == Path(story.__file__)


@pytest.mark.parametrize("story", STORIES)
def test_the_healthy_setting_is_silent(story: Any) -> None:
    report = hunt(story.build(broken=False))
    assert report.findings == ()
    assert report.steps_run == 40


@pytest.mark.parametrize("story", [speech_enhancer, audio_codec, localiser, resumed_diffusion])
def test_the_healthy_setting_learns(story: Any) -> None:
    healthy = story.build(broken=False)
    losses = [value(healthy.step_fn()) for _ in range(60)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_complex_half_has_a_birthplace_in_the_first_step() -> None:
    report = hunt(speech_enhancer.build(broken=True))
    (birth,) = [f for f in report.findings if f.kind == "complex_half"]
    assert (birth.step, birth.module) == (0, "generator.mask")
    assert birth.op == "aten.view_as_complex.default"
    assert {stats.dtype for stats in birth.inputs} == {"float16"}


def test_the_enhancer_is_fine_for_twelve_steps_and_then_never_again() -> None:
    broken = speech_enhancer.build(broken=True)
    losses = [value(broken.step_fn()) for _ in range(13)]
    assert all(torch.isfinite(torch.tensor(losses[:12])))
    assert not torch.isfinite(torch.tensor(losses[12]))


def test_the_poisoned_statistics_leave_no_valid_batch_while_training_goes_on() -> None:
    broken = fourier_inpainting.build(broken=True)
    for _ in range(12):
        broken.step_fn()
    assert broken.extras["clock"]["skipped"] == 1
    assert broken.extras["evaluate"]() == (0, 4)
    assert all(torch.isfinite(p).all() for p in broken.model.parameters())
    report = hunt(fourier_inpainting.build(broken=True))
    assert report.finding is not None
    assert any("local_conv.1.running_mean" in name for name in report.finding.reaches)


def test_the_localiser_is_numerically_healthy_and_all_but_never_steps() -> None:
    broken = localiser.build(broken=True)
    report = hunt(broken)
    assert {f.kind for f in report.findings} == {"not_training"}
    causes = {f.cause: f for f in report.findings}
    assert set(causes) == {"optimizer_never_steps", "parameters_without_gradient"}
    assert "0 updates in 40 calls" in causes["optimizer_never_steps"].explanation
    (listed,) = causes["parameters_without_gradient"].evidence
    assert listed == "parameters: front.weight, front.bias"
    clock = broken.extras["clock"]
    assert clock["updates"] == 0 < clock["batches"]


def test_the_resumed_run_is_bad_from_the_step_that_draws_late_times() -> None:
    broken = resumed_diffusion.build(broken=True)
    losses = [value(broken.step_fn()) for _ in range(4)]
    assert [bool(torch.isfinite(torch.tensor(loss))) for loss in losses] == [True] * 3 + [False]
    assert broken.extras["clock"]["logged"] == 0.0, "the log hides it"
