"""`make demo`: runs the first example notebook in a real kernel and shows its verdict."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

import nanhunt

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "demo"


def main() -> None:
    """Executes the notebook, prints the report, says where everything lies."""
    OUT.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = str(ROOT / "examples")
    source = ROOT / "examples" / "01_first_hunt.ipynb"
    notebook = nbformat.read(source, as_version=4)
    print(f"running {source.name} in a kernel ...", flush=True)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(OUT)}}).execute()
    executed = OUT / source.name
    nbformat.write(notebook, executed)
    shutil.copytree(ROOT / "examples" / "stories", OUT / "stories", dirs_exist_ok=True)
    print()
    print(nanhunt.load_report(OUT / "first_hunt.nanhunt.json"))
    print()
    print(f"executed notebook: {executed.relative_to(ROOT)}")
    print(f"report as a page:  {(OUT / 'first_hunt.html').relative_to(ROOT)}")
    print("open both in JupyterLab with: make lab")


if __name__ == "__main__":
    sys.exit(main())
