"""Commands in processes of their own that need not import torch: forks of one that has."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
# The first optimizer of a process imports torch._dynamo, which takes longer than torch itself.
_CONTEXT.set_forkserver_preload(["torch", "torch._dynamo", "nanhunt.cli"])


def nanhunt_command(
    *arguments: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m nanhunt` with these arguments; what it writes is read as UTF-8."""
    return _forked(_command, arguments, cwd, environment)


def python_script(
    path: Path, *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `python PATH` with these arguments."""
    return _forked(_script, (path, *arguments), cwd, None)


def python_module(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs `python -m NAME` with these arguments."""
    return _forked(_module, (name, *arguments), None, None)


def _forked(
    run: Callable[[list[str]], None],
    arguments: Sequence[object],
    cwd: Path | None,
    environment: Mapping[str, str] | None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "stdout", Path(folder) / "stderr"]
        variables = dict(os.environ if environment is None else environment)
        told = (run, words, str(cwd or Path.cwd()), variables, [str(file) for file in files])
        process = _CONTEXT.Process(target=_begin, args=told)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout)
        out, err = (file.read_text(encoding="utf-8") for file in files)
    return subprocess.CompletedProcess(words, process.exitcode, out, err)


def _begin(
    run: Callable[[list[str]], None],
    words: list[str],
    cwd: str,
    environment: dict[str, str],
    files: list[str],
) -> None:
    """What the fork does: it takes the place of a new interpreter."""
    for number, name in enumerate(files, start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    # Processes that it starts are started as by a new interpreter, not as it was itself.
    multiprocessing.set_start_method(None, force=True)
    run(words)


def _command(words: list[str]) -> None:
    sys.path.insert(0, "")
    sys.argv = ["nanhunt", *words]
    runpy.run_module("nanhunt", run_name="__main__", alter_sys=True)


def _script(words: list[str]) -> None:
    sys.path.insert(0, str(Path(words[0]).parent))
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


def _module(words: list[str]) -> None:
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
