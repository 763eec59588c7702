"""Preflight says what the stories' people were missing, and puts everything back."""

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

STORIES = [speech_enhancer, audio_codec, fourier_inpainting, localiser, resumed_diffusion]


def preflight(story: Any) -> nanhunt.Preflight:
    return nanhunt.preflight(story.model, story.step_fn)


def lines(facts: nanhunt.Preflight, kind: str) -> list[str]:
    return [w.source.code if w.source else "" for w in facts.warnings if w.kind == kind]


def bits(model: Any) -> list[torch.Tensor]:
    modules = model.values() if isinstance(model, dict) else [model]
    return [v.clone() for m in modules for v in m.state_dict().values()]


@pytest.mark.parametrize("story", STORIES)
def test_everything_is_put_back_and_the_facts_survive_json(story: Any) -> None:
    program = story.build()
    before, random = bits(program.model), torch.get_rng_state()
    facts = preflight(program)
    assert all(map(torch.equal, before, bits(program.model)))
    assert torch.equal(random, torch.get_rng_state())
    assert nanhunt.Preflight.from_dict(facts.to_dict()) == facts
    assert str(facts).split("\n")[0].find("Preflight: ") == 2
    assert facts.parameters[0].total > 0


def test_the_birthplace_and_the_autocast_region_of_the_enhancer_are_named() -> None:
    facts = preflight(speech_enhancer.build())
    assert any("view_as_complex" in code for code in lines(facts, "complex_half"))
    assert any(r.source and "autocast" in r.source.code for r in facts.autocast)


def test_the_line_that_detaches_the_localiser_is_named() -> None:
    facts = preflight(localiser.build())
    assert lines(facts, "no_gradient") == ["mixed = mixed.detach()"]
