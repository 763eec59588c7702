"""A hunt over a small training, to be stepped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import nanhunt
from tests.stepping.programs import training


@pytest.fixture
def hunt() -> Iterator[nanhunt.Hunt]:
    model, _, step_fn, _ = training()
    with nanhunt.Hunt(model, step_fn, back=5) as made:
        yield made
