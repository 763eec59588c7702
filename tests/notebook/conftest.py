"""The browser that the tests drive, and the environment that its pages come from."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import find_chromium
import pytest
from jupyterlab.commands import get_app_dir
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import once
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for a file of tests; longer, its event loop would be in the way of others."""
    path = find_chromium.find()
    assert path, "the browser tests need Chromium: sudo apt-get install -y chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of somebody who was never here before."""
    context = browser.new_context(viewport={"width": 1280, "height": 1500})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def installed(built_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment into which only the built wheel was installed.

    Everything that the wheel needs is taken from this environment, but not what others have
    put where Jupyter looks for extensions.
    """
    folder = once(tmp_path_factory, "installed", lambda made: _install(built_wheel, made))
    return folder / "bin" / "python"


def _install(wheel: Path, folder: Path) -> None:
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--no-index",
         "--no-deps", wheel],
        check=True,
    )  # fmt: skip
    (site,) = (folder / "lib").glob("python*/site-packages")
    paths = sysconfig.get_paths()
    # Only now, or pip would find nanhunt there.
    (site / "needed.pth").write_text(f"{paths['purelib']}\n{paths['platlib']}\n")


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
