"""Promises about the JupyterLab extension that need no browser."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from jupyterlab.commands import get_app_dir

import nanhunt
from nanhunt.panel.controls import CONTROLS
from nanhunt.records.preflight import Preflight
from nanhunt.records.report import Report
from nanhunt.render import wording
from tests.render.others import preflight
from tests.render.reports import REPORTS

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "labextension"
SAMPLES = SOURCES / "tests" / "samples" / "reports.json"
NUMBERS = (0.0, 1.0, -2.5, 65504.0, 999.4, 999.6, 0.00012345, 0.000099, 6e-8, 1e300, 100.0, 0.1)


def samples() -> dict[str, Any]:
    """Reports with what Python says about them, for the extension's own tests."""
    reports = {
        name: {
            "report": report.to_dict(),
            "verdict": report.story().verdict,
            "sign": report.story().glyph,
            "facts": [value for _, value in report.story().facts] + list(report.story().notes),
            "values": [
                wording.bad_counts(stats)
                for finding in report.findings
                for stats in (*finding.inputs, *finding.outputs)
            ],
        }
        for name, report in REPORTS.items()
    }
    facts = preflight().to_dict()
    return {
        "reports": reports,
        "preflight": facts,
        "numbers": [[value, wording.number(value)] for value in NUMBERS],
    }


def test_the_extensions_samples_are_what_python_writes_today() -> None:
    """NANHUNT_GOLDEN=1 writes them anew; read the difference before you commit it."""
    made = json.dumps(samples(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("NANHUNT_GOLDEN"):
        SAMPLES.parent.mkdir(parents=True, exist_ok=True)
        SAMPLES.write_text(made, encoding="utf-8")
    assert made == SAMPLES.read_text(encoding="utf-8")


def test_the_extension_has_the_packages_version() -> None:
    package = json.loads((SOURCES / "package.json").read_text(encoding="utf-8"))
    assert package["version"] == nanhunt.__version__


def test_the_extension_reads_the_format_that_python_writes() -> None:
    source = (SOURCES / "src" / "report" / "format.ts").read_text(encoding="utf-8")
    assert f"MIME_TYPE = '{Report.MIME_TYPE}'" in source
    assert f"VERSION = {Report.VERSION};" in source
    assert f"PREFLIGHT_MIME_TYPE = '{Preflight.MIME_TYPE}'" in source
    assert f"PREFLIGHT_FORMAT = '{Preflight.FORMAT}'" in source


def test_a_preflight_reaches_the_extension() -> None:
    made = preflight()
    assert made._repr_mimebundle_()[Preflight.MIME_TYPE] == made.to_dict()


def test_the_keys_are_nobody_elses() -> None:
    schema = json.loads((SOURCES / "schema" / "plugin.json").read_text(encoding="utf-8"))
    ours = [" ".join(shortcut["keys"]) for shortcut in schema["jupyter.lab.shortcuts"]]
    schemas = (Path(get_app_dir()) / "schemas").rglob("*.json")
    theirs = {
        " ".join(shortcut["keys"])
        for path in schemas
        for shortcut in json.loads(path.read_text(encoding="utf-8")).get(
            "jupyter.lab.shortcuts", []
        )
    }
    assert "F10" in theirs  # the debugger's
    assert len(set(ours)) == len(ours) == len(CONTROLS) + 3  # and three of the reports
    assert not theirs & set(ours)
