"""What the browser tests of the extension do with a page."""

from __future__ import annotations

import time

from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as NotThereError

from tests.notebook.servers import SHOTS, Server

# Set in a page that the next test may have. One that was reloaded since is not: JupyterLab may
# still be opening what had been open before.
SHARED = "window.sharedByTests"
# What a command returns may be a widget, which cannot be told.
COMMAND = (
    "async ([name, options]) => void (await window.jupyterapp.commands.execute(name, options))"
)


def open_page(server: Server, page: Page, path: str, theme: str = "light") -> None:
    """Opens a file in JupyterLab, in which nothing was open, or no file if `path` is empty."""
    if not (page.url.startswith(server.address) and page.evaluate(SHARED)):
        page.goto(f"{server.address}/lab?reset")
        page.wait_for_function("window.jupyterapp", timeout=60_000)
        page.evaluate("async () => void (await window.jupyterapp.restored)")
        page.evaluate(f"{SHARED} = true")
    change_theme(page, theme)
    if path:
        page.evaluate(COMMAND, ["docmanager:open", {"path": path}])


def change_theme(page: Page, theme: str) -> None:
    """Makes the page `"light"` or `"dark"`."""
    chosen = {"theme": f"JupyterLab {theme.capitalize()}"}
    page.evaluate(COMMAND, ["apputils:change-theme", chosen])
    wait_for_theme(page, theme)


def open_anew(server: Server, page: Page, path: str) -> None:
    """Loads JupyterLab anew with a saved file, and nothing else of what was open before."""
    page.goto(f"{server.address}/lab/tree/{path}?reset")


def wait_for_theme(page: Page, theme: str) -> None:
    """Waits until the page is `"light"` or `"dark"`."""
    body = f'body[data-jp-theme-light="{str(theme == "light").lower()}"]'
    page.wait_for_selector(body, state="attached", timeout=60_000)


def report_on(page: Page) -> Locator:
    """The report that is in front."""
    report = page.locator(".nanhunt-Report").filter(visible=True).first
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
            # After its last cell the notebook takes the focus.
            expect(page.locator(".jp-InputPrompt", has_text="*")).to_have_count(0)
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
