"""Records other than reports: golden, narrow enough, and safe with whatever names hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanhunt.errors import ReportFormatError
from tests.render import others
from tests.render.test_render import GOLDEN, HOSTILE, Reader

RECORDS: dict[str, Callable[..., Any]] = {
    "preflight": others.preflight,
    "comparison": others.comparison,
    "diagnosis": others.diagnosis,
    "timeline": others.timeline,
    "guard": others.guard,
    "evaluation": others.evaluation,
    "recalibration": others.recalibration,
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


@pytest.mark.parametrize("name", RECORDS)
def test_what_was_saved_is_read_back(name: str, tmp_path: Path) -> None:
    record = RECORDS[name]()
    path = record.save(tmp_path / name)
    assert path.name == f"{name}.nanhunt.json"
    assert type(record).load(path) == record


@pytest.mark.parametrize("name", RECORDS)
def test_one_kind_of_record_is_not_read_as_another(name: str) -> None:
    data = {**RECORDS[name]().to_dict(), "format": "nanhunt.else"}
    with pytest.raises(ReportFormatError, match="this is not a nanhunt"):
        type(RECORDS[name]()).from_dict(data)
