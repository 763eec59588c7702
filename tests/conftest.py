"""One thread, one seed, and a check after every test that nothing stays installed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for kernels and processes that tests start

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from tests.leftovers import installed, threads_left
from tests.workers import Together

# The same examples in every run; a search for others: --hypothesis-profile=default
settings.register_profile("same", derandomize=True, database=None)
settings.load_profile("same")
torch.set_num_threads(1)
# A shell has what it starts in the background ignore interrupts, and so would every process that
# the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nobody asks
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """The division of the suite among workers."""
    return Together(config, log)


@pytest.fixture(autouse=True)
def nothing_stays_installed() -> Iterator[None]:
    """Fails a test after which anything is still attached, changed or running."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    before, threads = installed(), set(threading.enumerate())
    yield
    after = installed()
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    assert not changed, f"still installed or changed after the test: {', '.join(changed)}"
    left = threads_left(threads)
    assert not left, f"threads still running after the test: {', '.join(left)}"


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made once in a run, whichever worker wants it first."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # which all workers share
    folder = base / name
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            folder.mkdir()
            make(folder)
            (folder / "complete").touch()
    return folder


@pytest.fixture(scope="session")
def built_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the back end that this environment has."""
    (wheel,) = once(tmp_path_factory, "wheel", _build_wheel).glob("*.whl")
    return wheel


def _build_wheel(folder: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(folder)]
    # Yarn, as Jupyter ships it, lies beside the interpreter.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path}
    root = Path(__file__).resolve().parent.parent
    built = root / "nanhunt" / "labextension" / "package.json"
    sources = [*root.glob("labextension/src/**/*.ts*"), *root.glob("labextension/style/*")]
    sources.append(root / "nanhunt" / "panel" / "controls.json")
    newest = max(source.stat().st_mtime for source in sources)
    fresh = not built.exists() or built.stat().st_mtime > newest
    assert fresh, "the built extension is older than its sources: `make lint` builds it anew"
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
