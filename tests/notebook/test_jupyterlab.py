"""The magics in real JupyterLab in Chromium, light and dark; screenshots in build/screenshots."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as NotThereError

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "build" / "screenshots"
sys.path.insert(0, str(ROOT / "tools"))

import find_chromium  # noqa: E402

CELLS = [
    "%load_ext nanhunt\n"
    "import torch\n"
    "model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))\n"
    "optimizer = torch.optim.Adam(model.parameters())\n"
    "x = torch.ones(8, 2)",
    "def step_fn():\n"
    "    optimizer.zero_grad()\n"
    "    loss = (model(x) * 0).log().mean()\n"
    "    loss.backward()\n"
    "    optimizer.step()\n"
    "%nanhunt model step_fn",
    "%%nanhunt model\n"
    "for n in range(6):\n"
    "    optimizer.zero_grad()\n"
    "    model(x * 10.0 ** (39 * (n == 4))).mean().backward()\n"
    "    optimizer.step()",
]
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
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A JupyterLab server of our own with two notebooks: its address, its settings folder."""
    home = tmp_path_factory.mktemp("lab")
    for theme in ("light", "dark"):
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, home / f"{theme}.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {name: str(home / name) for name in ("config", "data", "runtime", "settings", "ws")}
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": folders["config"],
        "JUPYTER_DATA_DIR": folders["data"],
        "JUPYTER_RUNTIME_DIR": folders["runtime"],
        "JUPYTERLAB_SETTINGS_DIR": folders["settings"],
        "JUPYTERLAB_WORKSPACES_DIR": folders["ws"],
        "PYTHONPATH": str(ROOT),
    }
    news = Path(folders["settings"]) / "@jupyterlab" / "apputils-extension"
    news.mkdir(parents=True)
    (news / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )
    log = (home / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root",
         f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
         f"--ServerApp.root_dir={home}"],
        env=environment, stdout=log, stderr=log, cwd=home,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, server)
        yield address, news
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def _wait_for(address: str, server: subprocess.Popen[Any]) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        assert server.poll() is None, "JupyterLab did not start"
        try:
            with urllib.request.urlopen(f"{address}/api", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError("JupyterLab did not answer")


@pytest.fixture
def page() -> Iterator[Page]:
    path = find_chromium.find()
    assert path, "the browser tests need Chromium: sudo apt-get install -y chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser.new_page(viewport={"width": 1280, "height": 1500})
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_magics_show_their_report_under_the_cell(
    lab: tuple[str, Path], page: Page, theme: str
) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    address, settings = lab
    chosen = {"theme": f"JupyterLab {theme.capitalize()}"}
    (settings / "themes.jupyterlab-settings").write_text(json.dumps(chosen))
    page.goto(f"{address}/lab/tree/{theme}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    body = f'body[data-jp-theme-light="{str(theme == "light").lower()}"]'
    page.wait_for_selector(body, state="attached")
    reports = page.locator(".jp-OutputArea-output section.nanhunt")
    _run_all_cells(page, reports)
    first, second = reports.nth(0), reports.nth(1)
    assert "Inf is born in step 0: aten.log.default" in first.inner_text()
    assert "line 3" in first.locator("pre").first.inner_text()
    assert "step 4" in second.inner_text()
    assert first.locator("details").count() >= 2
    ink = first.evaluate("node => getComputedStyle(node).color")
    assert (min(_rgb(ink)) > 180) == (theme == "dark"), f"{ink} cannot be read"
    first.scroll_into_view_if_needed()
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"magics-{theme}.png")
    assert errors == []


def _run_all_cells(page: Page, reports: Locator) -> None:
    """Runs the notebook by the menu; JupyterLab loses the click while its kernel starts.

    On a busy machine it may also ask first which kernel is meant: then the default is taken.
    """
    page.wait_for_selector('[data-status="idle"]', timeout=90_000)
    asked: list[str] = []
    for _ in range(6):
        dialog = page.locator("dialog.jp-Dialog")
        if dialog.count():
            asked.append(dialog.first.inner_text())
            dialog.first.locator("button.jp-mod-accept").click()
        try:
            page.get_by_role("menuitem", name="Run", exact=True).click(timeout=5_000)
            page.get_by_text("Run All Cells", exact=True).click(timeout=5_000)
            reports.nth(1).wait_for(timeout=30_000)
        except NotThereError:
            continue
        return
    raise AssertionError(f"the reports did not appear; JupyterLab asked {asked}")


def _rgb(colour: str) -> list[float]:
    return [float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
