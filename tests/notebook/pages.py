"""What tests do on a page of JupyterLab."""

from __future__ import annotations

from playwright.sync_api import Locator, Page
from playwright.sync_api import TimeoutError as NotThereError


def run_all_cells(page: Page, last: Locator) -> None:
    """Runs the notebook by the menu until `last` is there.

    JupyterLab loses the click while its kernel starts. On a busy machine it may also ask first
    which kernel is meant: then the default is taken.
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
            last.wait_for(timeout=30_000)
        except NotThereError:
            continue
        return
    raise AssertionError(f"the outputs did not appear; JupyterLab asked {asked}")
