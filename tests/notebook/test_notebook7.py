"""The extension of the built wheel in Jupyter Notebook 7 in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyterlab.commands import get_app_dir
from playwright.sync_api import Page, expect

from tests.notebook import stories
from tests.notebook.browsing import report_on, shot
from tests.notebook.servers import Server, serve

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def notebook(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Notebook 7 over a notebook with a report, and a report file."""
    home = tmp_path_factory.mktemp("notebook7")
    stories.write(home / "hunt.ipynb", stories.report())
    stories.report().save(home / "run7")
    with serve(home, "notebook", python=installed, JUPYTERLAB_DIR=get_app_dir()) as server:
        yield server


@pytest.fixture
def own_errors(page: Page) -> Iterator[None]:
    """Fails a test in whose page a script of ours failed; Notebook 7.6 has an error of its own."""
    seen: list[str] = []
    page.on("pageerror", lambda error: seen.append(f"{error}\n{error.stack}"))
    yield
    assert [error for error in seen if "/extensions/nanhunt/" in error] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_report_mark_link_and_sidebar_are_there(
    notebook: Server, page: Page, own_errors: None, theme: str
) -> None:
    notebook.choose_theme(theme)
    page.goto(f"{notebook.address}/notebooks/hunt.ipynb")
    report = report_on(page)
    expect(report).to_contain_text("Inf is born in step 40")
    mark = page.locator(".jp-Cell .nanhunt-mark")
    expect(mark).to_contain_text("✗ Inf")
    report.locator(".nanhunt-Report-culprit button").click()
    active = page.locator(".jp-Cell.jp-mod-active")
    expect(active).to_contain_text("def step_fn")
    page.keyboard.press("Alt+Shift+N")
    sidebar = page.get_by_role("region", name="nanhunt findings")
    expect(sidebar.locator(".nanhunt-Sidebar-report")).to_have_text(["hunt in cell [3]"])
    shot(page, f"notebook7-{theme}")
    sidebar.get_by_role("button", name="hunt in cell [3]").click()
    expect(active).to_contain_text("%nanhunt model step_fn")
    page.keyboard.press("Alt+Shift+N")
    expect(sidebar).to_be_hidden()
    page.keyboard.press("Alt+F8")
    expect(active).to_contain_text("def step_fn")
    page.keyboard.type("# edited ")
    expect(active.locator(".cm-line").nth(2)).to_contain_text("# edited")
    expect(mark).to_have_count(0)


def test_a_report_file_opens_from_the_list_of_files(
    notebook: Server, page: Page, own_errors: None
) -> None:
    page.goto(f"{notebook.address}/tree")
    item = page.get_by_role("listitem").filter(has_text="run7.nanhunt.json")
    with page.context.expect_page() as opened:
        item.dblclick()
    expect(report_on(opened.value)).to_contain_text("Inf is born in step 40")
