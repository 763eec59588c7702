"""Commands in processes of their own that need not import torch: forks of one that has."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "nanhunt.cli", "nanhunt"])


def nanhunt_command(
    *arguments: object,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m nanhunt` with these arguments; what it writes is read as UTF-8."""
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "stdout", Path(folder) / "stderr"]
        variables = dict(os.environ if environment is None else environment)
        told = (words, str(cwd or Path.cwd()), variables, [str(file) for file in files])
        process = _CONTEXT.Process(target=_run, args=told)
        process.start()
        try:
            process.join(timeout)
            if process.exitcode is None:
                raise subprocess.TimeoutExpired(words, timeout)
        finally:
            process.kill()
            process.join()
        out, err = (file.read_text(encoding="utf-8") for file in files)
    return subprocess.CompletedProcess(words, process.exitcode or 0, out, err)


def _run(words: list[str], cwd: str, environment: dict[str, str], files: list[str]) -> None:
    """What the fork does: it takes the place of a new interpreter."""
    for number, name in enumerate(files, start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    sys.argv = ["nanhunt", *words]
    runpy.run_module("nanhunt", run_name="__main__", alter_sys=True)
