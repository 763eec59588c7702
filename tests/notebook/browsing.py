"""What the browser tests of the extension do with a page."""

from __future__ import annotations

from playwright.sync_api import Locator, Page

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
    page.screenshot(path=SHOTS / f"{name}.png")
