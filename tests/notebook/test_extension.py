"""The JupyterLab extension of the built wheel, in JupyterLab in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyterlab.commands import get_app_dir
from playwright.sync_api import Locator, Page, expect

from tests.notebook import stories
from tests.notebook.servers import SHOTS, Server, serve

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def lab(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab from the built wheel, over notebooks and report files."""
    home = tmp_path_factory.mktemp("reports")
    stories.write(home / "hunt.ipynb", stories.report())
    stories.report().save(home / "run7")
    with serve(home, python=installed, JUPYTERLAB_DIR=get_app_dir()) as server:
        yield server


def open_page(lab: Server, page: Page, path: str, theme: str = "light") -> list[str]:
    """Opens a file in JupyterLab; returns the list in which errors of the page will be."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    lab.choose_theme(theme)
    page.goto(f"{lab.address}/lab/tree/{path}?reset")
    body = f'body[data-jp-theme-light="{str(theme == "light").lower()}"]'
    page.wait_for_selector(body, state="attached", timeout=90_000)
    return errors


def shown(page: Page) -> Locator:
    """The report on the page."""
    report = page.locator(".nanhunt-Report").first
    report.wait_for(timeout=60_000)
    return report


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_report_in_a_saved_notebook_is_shown(lab: Server, page: Page, theme: str) -> None:
    errors = open_page(lab, page, "hunt.ipynb", theme)
    report = shown(page)
    expect(report.locator("strong").first).to_have_text(
        "Inf is born in step 40: aten.log.default in decoder.head (forward), cell [2], line 3"
    )
    for fold in report.locator("summary").all():
        if not fold.evaluate("node => node.parentNode.open"):
            fold.click()
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"report-{theme}.png")
    assert errors == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_report_file_opens_in_the_viewer(lab: Server, page: Page, theme: str) -> None:
    errors = open_page(lab, page, "run7.nanhunt.json", theme)
    report = shown(page)
    expect(report).to_contain_text("Inf is born in step 40")
    page.screenshot(path=SHOTS / f"file-{theme}.png")
    assert errors == []
