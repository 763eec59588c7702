"""The README's program, run in a real kernel; as a command, writes its output into the README."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from kernel import ROOT, execute
from nbformat.v4 import new_code_cell, new_notebook

README = ROOT / "README.md"
PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)
MAGICS = re.compile(r"^    (%.*)$", re.MULTILINE)
OUTPUT = re.compile(r"```text\n(.*?)```", re.DOTALL)


def run(page: str) -> str:
    """What the first two magics on the page print after its program."""
    program = PROGRAM.search(page)
    assert program is not None, "the README has no program"
    load, hunt = MAGICS.findall(page)[:2]
    notebook = new_notebook(cells=[new_code_cell(c) for c in (program[1].strip(), load, hunt)])
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, Path(folder))
    result = notebook.cells[-1].outputs[-1]
    return str(result["data"]["text/plain"])


def main() -> None:
    """Puts the real output in the place of the one that is there."""
    page = README.read_text(encoding="utf-8")
    fresh = f"```text\n{run(page)}\n```"
    README.write_text(OUTPUT.sub(lambda _: fresh, page, count=1), encoding="utf-8")


if __name__ == "__main__":
    main()
