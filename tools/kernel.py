"""Runs a notebook in a real kernel of its own."""

from __future__ import annotations

import os
from pathlib import Path

from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Executes the cells in place, with `folder` as the kernel's working directory.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    paths = [str(ROOT), str(ROOT / "examples")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,
        iopub_timeout=60,
        # Errors only: it would warn of its sockets, which are this machine's own.
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    client.execute(cwd=str(folder), env=environment)
