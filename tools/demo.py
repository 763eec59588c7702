"""`make demo`: runs the first example notebook in a real kernel and shows its verdict."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from kernel import ROOT, execute
from nbclient.exceptions import CellExecutionError

from nanhunt.records.record import FILE_SUFFIX
from nanhunt.records.report import load_report

SOURCE = ROOT / "examples" / "01_first_hunt.ipynb"
OUT = ROOT / "build" / "demo"
SAVED = OUT / f"first_hunt{FILE_SUFFIX}"  # written by the notebook's last cell


def run_notebook() -> Path:
    """Executes a copy of the notebook in the output folder, and returns the copy."""
    OUT.mkdir(parents=True, exist_ok=True)
    SAVED.unlink(missing_ok=True)  # a verdict of an earlier run must not pass for this one
    notebook = nbformat.read(SOURCE, as_version=4)
    executed = OUT / SOURCE.name
    try:
        execute(notebook, OUT)
    finally:
        nbformat.write(notebook, executed)
    return executed


def main() -> int:
    """Executes the notebook, prints the report, and says how to open both."""
    print(f"Running {SOURCE.relative_to(ROOT)} in a kernel of its own ...", flush=True)
    try:
        executed = run_notebook()
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    report = load_report(SAVED)
    page = OUT / "report.html"
    report.to_html(page)
    print(f"\n{report}\n")
    print(f"executed notebook: {executed.relative_to(ROOT)}")
    print(f"report as a page:  {page.relative_to(ROOT)}")
    print("To open them in JupyterLab: make lab, then the folder build/demo on the left.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
