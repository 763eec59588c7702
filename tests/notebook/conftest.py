"""The browser that the tests drive, and the environment that its pages come from."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import find_chromium
import pytest
from jupyterlab.commands import get_app_dir
from playwright.sync_api import Page, expect, sync_playwright

from tests.notebook.servers import Server, serve

expect.set_options(timeout=20_000)  # milliseconds; a busy machine is slow, not wrong

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a browser of our own."""
    path = find_chromium.find()
    assert path, "the browser tests need Chromium: sudo apt-get install -y chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser.new_page(viewport={"width": 1280, "height": 1500})
        browser.close()


@pytest.fixture(scope="session")
def installed(built_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment into which only the built wheel was installed.

    Everything that the wheel needs is taken from this environment, but not what others have
    put where Jupyter looks for extensions.
    """
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    paths = sysconfig.get_paths()
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    subprocess.run(
        [python, "-m", "pip", "install", "-qq", "--no-index", "--no-deps", built_wheel],
        check=True, env={**os.environ, "PATH": str(folder / "bin")},
    )  # fmt: skip
    # Only now, or pip would find nanhunt there.
    (Path(site) / "needed.pth").write_text(f"{paths['purelib']}\n{paths['platlib']}\n")
    return python


@pytest.fixture(scope="module")
def lab(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab from the built wheel, over an empty folder."""
    home = tmp_path_factory.mktemp("reports")
    with serve(home, python=installed, JUPYTERLAB_DIR=get_app_dir()) as server:
        yield server


@pytest.fixture
def errors(page: Page) -> Iterator[None]:
    """Fails a test in whose page a script failed."""
    seen: list[str] = []
    page.on("pageerror", lambda error: seen.append(str(error)))
    yield
    assert seen == []
