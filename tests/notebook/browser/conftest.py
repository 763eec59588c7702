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
from playwright.sync_api import Browser, Error, Page, ViewportSize, expect, sync_playwright

from tests.conftest import once
from tests.notebook.browser.browsing import SHARED
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


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium for this folder; longer, its event loop would be in the way of other tests."""
    path = find_chromium.find()
    assert path, "the browser tests need Chromium: sudo apt-get install -y chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


# Brings a page of JupyterLab back to what it was when it was loaded, which would take two cores
# for five seconds: no document is open, our sidebar is closed. Kernels live on: a notebook that
# is written and opened again under its name finds the kernel that has imported torch already.
AS_LOADED = """async () => {
  const { shell, commands } = window.jupyterapp;
  for (const area of ['main', 'down']) {
    for (const widget of [...shell.widgets(area)]) {
      if (widget.context) {
        await widget.context.sessionContext.ready;  // a kernel that just starts would complain
        widget.context.model.dirty = false;  // or a person would be asked whether to save it
      }
      widget.close();
    }
  }
  shell.collapseRight();
  await commands.execute('filebrowser:activate');
  await commands.execute('filebrowser:refresh');
}"""
SIZE: ViewportSize = {"width": 1280, "height": 1500}


class Tab:
    """The page that the tests share, and its successor after a test that failed in it."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._page: Page | None = None

    def page(self) -> Page:
        if self._page is None:
            self._page = self._browser.new_context().new_page()
        self._page.set_viewport_size(SIZE)
        return self._page

    def close(self) -> None:
        if self._page is not None:
            self._page.context.close()
        self._page = None


@pytest.fixture(scope="package")
def tab(browser: Browser) -> Iterator[Tab]:
    made = Tab(browser)
    yield made
    made.close()


@pytest.fixture
def page(tab: Tab, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page in which nothing is open; `open_page` in browsing.py is the way into JupyterLab."""
    failed = request.session.testsfailed
    page = tab.page()
    if page.evaluate(SHARED):
        page.evaluate(AS_LOADED)
    yield page
    if request.session.testsfailed > failed:
        tab.close()


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


@pytest.fixture(scope="package")
def lab(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab from the built wheel, with the widgets that the panel is made of."""
    home = tmp_path_factory.mktemp("lab")
    widgets = Path(sysconfig.get_path("data")) / "share/jupyter/labextensions/@jupyter-widgets"
    extensions = tmp_path_factory.mktemp("extensions")
    (extensions / "@jupyter-widgets").symlink_to(widgets)
    options = [f"--LabApp.extra_labextensions_path={extensions}"]
    with serve(home, python=installed, options=options, JUPYTERLAB_DIR=get_app_dir()) as server:
        yield server


@pytest.fixture
def errors(page: Page) -> Iterator[None]:
    """Fails a test in whose page a script failed."""
    seen: list[str] = []

    def note(error: Error) -> None:
        seen.append(str(error))

    page.on("pageerror", note)
    yield
    page.remove_listener("pageerror", note)
    assert seen == []
