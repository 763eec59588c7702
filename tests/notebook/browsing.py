"""What the browser tests of the extension do with a page."""

from __future__ import annotations

import time

from playwright.sync_api import Locator, Page
from playwright.sync_api import TimeoutError as NotThereError

from tests.notebook.servers import SHOTS, Server


def open_page(server: Server, page: Page, path: str, theme: str = "light") -> None:
    """Opens a file in JupyterLab, or JupyterLab alone when `path` is empty."""
    server.choose_theme(theme)
    page.goto(f"{server.address}/lab{'/tree/' if path else ''}{path}?reset")
    body = f'body[data-jp-theme-light="{str(theme == "light").lower()}"]'
    page.wait_for_selector(body, state="attached", timeout=60_000)


def report_on(page: Page) -> Locator:
    """The report on the page."""
    report = page.locator(".nanhunt-Report").first
    report.wait_for(timeout=30_000)
    return report


def unfold(report: Locator, name: str) -> Locator:
    """Unfolds a part of a report."""
    fold = report.locator("details").filter(has=report.page.locator("summary", has_text=name))
    if not fold.first.evaluate("node => node.open"):
        fold.first.locator("summary").first.click()
    return fold.first


def shot(page: Page, name: str) -> None:
    """Takes a screenshot into build/screenshots."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    # Playwright itself would write it in a thread, which lives as long as the browser.
    (SHOTS / f"{name}.png").write_bytes(page.screenshot())


def run_all_cells(page: Page, wanted: Locator) -> None:
    """Runs the notebook by the menu until something is there.

    JupyterLab loses the click while its kernel starts. On a busy machine it may also ask
    first which kernel is meant: then the default is taken.
    """
    page.wait_for_selector('[data-status="idle"]', timeout=90_000)
    asked: list[str] = []
    end = time.monotonic() + 180
    while time.monotonic() < end:
        dialog = page.locator("dialog.jp-Dialog")
        if dialog.count():
            asked.append(dialog.first.inner_text())
            dialog.first.locator("button.jp-mod-accept").click()
        try:
            page.get_by_role("menuitem", name="Run", exact=True).click(timeout=5_000)
            page.get_by_text("Run All Cells", exact=True).click(timeout=5_000)
        except NotThereError:
            continue
        if _appears(page, wanted):
            return
    raise AssertionError(f"what was wanted did not appear; JupyterLab asked {asked}")


def _appears(page: Page, wanted: Locator) -> bool:
    """Whether something is there within 30 seconds; a click that was lost is known sooner."""
    idle = 0
    for _ in range(10):
        if _is_there(wanted):
            return True
        prompts = page.locator(".jp-InputPrompt").all_inner_texts()
        idle = 0 if any(prompt.strip("[]: ") for prompt in prompts) else idle + 1
        if idle == 3:
            return False  # no cell runs or has run
    return False


def _is_there(wanted: Locator) -> bool:
    try:
        wanted.wait_for(timeout=3_000)
    except NotThereError:
        return False
    return True
