"""Preflight, comparison and diagnosis: golden, narrow enough, and safe with whatever names hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from nanhunt.records.comparison import Comparison
from nanhunt.records.diagnosis import Diagnosis
from nanhunt.records.preflight import Preflight
from tests.render.others import comparison, diagnosis, preflight, timeline
from tests.render.test_render import GOLDEN, HOSTILE, Reader

RECORDS: dict[str, Callable[..., Any]] = {
    "preflight": preflight,
    "comparison": comparison,
    "diagnosis": diagnosis,
    "timeline": timeline,
}


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("kind", ["txt", "html"])
def test_the_rendering_is_the_golden_one(name: str, kind: str) -> None:
    """NANHUNT_GOLDEN=1 writes the files anew; read the difference before you commit it."""
    record = RECORDS[name]()
    made = str(record) if kind == "txt" else record.to_html()
    path = GOLDEN / f"{name}.{kind}"
    if os.environ.get("NANHUNT_GOLDEN"):
        path.write_text(made + "\n", encoding="utf-8")
    assert made + "\n" == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_stay_text(name: str, hostile: str) -> None:
    record = RECORDS[name](hostile)
    page = Reader(record.to_html())
    assert not {"script", "img", "b"} & set(page.tags)
    for line in str(record).splitlines():
        assert len(line) <= 100
        assert line.isprintable()


def test_all_survive_json() -> None:
    assert Preflight.from_dict(preflight().to_dict()) == preflight()
    assert Comparison.from_dict(comparison().to_dict()) == comparison()
    assert Diagnosis.from_dict(diagnosis().to_dict()) == diagnosis()
    assert Diagnosis.from_dict(timeline().to_dict()) == timeline()
