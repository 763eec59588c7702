"""Watching changes nothing: the same bits after 20 steps, watched or bare."""

from __future__ import annotations

import pytest
import torch

import nanhunt
from tests.campaign.architectures import NAMES, build

STEPS = 20


def end(name: str, watched: bool) -> list[torch.Tensor]:
    model, step, optimizer = build(name)
    torch.manual_seed(5)
    if watched:
        report = nanhunt.hunt(model, step, steps=STEPS, progress=False)
        assert report.findings == ()
    else:
        for _ in range(STEPS):
            step()
    state = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return [*model.parameters(), *model.buffers(), *grads, *state, torch.get_rng_state()]


@pytest.mark.parametrize("name", NAMES)
def test_twenty_watched_steps_give_the_bits_of_twenty_bare_ones(name: str) -> None:
    bare, watched = end(name, watched=False), end(name, watched=True)
    assert len(bare) == len(watched)
    assert all(map(torch.equal, bare, watched))
