"""Reports that somebody else made: shown as text or refused in words, and never run."""

from __future__ import annotations

import json
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Page, expect

from nanhunt.records.report import Frame, Source
from tests.notebook import stories
from tests.notebook.browsing import open_page, report_on, unfold
from tests.notebook.servers import Server

pytestmark = pytest.mark.browser

SCRIPT = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>&lt;b&gt;"


def hostile() -> dict[str, Any]:
    """A report whose every text is markup that would set `window.ran`."""
    line = Source(f"/tmp/{SCRIPT}.py", 3, SCRIPT, SCRIPT, cell=2)
    frames = (Frame(SCRIPT, 1, SCRIPT, stories.CLEAN), Frame(f"a.{SCRIPT}", 2, "b", stories.BAD))
    finding = stories.culprit(
        source=line, stack=(line, line), module=SCRIPT, op=SCRIPT, cause=SCRIPT, frames=frames,
        explanation=SCRIPT, evidence=(SCRIPT,), reaches=(SCRIPT,), kind=SCRIPT, phase=SCRIPT,
    )  # fmt: skip
    report = stories.report(finding, title=SCRIPT, notes=(SCRIPT,), environment={SCRIPT: SCRIPT})
    return report.to_dict()


def nothing_ran(page: Page) -> None:
    """The page is alive, and no script of the report's ran in it."""
    assert page.evaluate("window.ran ?? null") is None


def test_markup_is_shown_as_text_in_a_file_and_in_a_notebook(
    lab: Server, page: Page, errors: None
) -> None:
    (lab.home / "markup.nanhunt.json").write_text(json.dumps(hostile()))
    cells = ("import torch", f"1\n2\n{SCRIPT}", "%nanhunt model step_fn")
    stories.write(lab.home / "markup.ipynb", hostile(), *cells)
    for name in ("markup.nanhunt.json", "markup.ipynb"):
        open_page(lab, page, name)
        report = report_on(page)
        for part in ("Evidence", "Last modules", "How the program", "Environment"):
            unfold(report, part)
        expect(report.locator("p", has_text="window.ran").last).to_be_visible()
        assert report.locator("script, img:not([role]), b").count() == 0
        nothing_ran(page)
    expect(page.locator(".nanhunt-mark")).to_contain_text("<script>")
    page.keyboard.press("Alt+Shift+N")
    sidebar = page.get_by_role("region", name="nanhunt findings")
    expect(sidebar).to_contain_text("<script>")
    assert sidebar.locator("script, img, b").count() == 0
    nothing_ran(page)


NESTED = "[" * 100_000 + "]" * 100_000
REFUSED = {
    "truncated": (json.dumps(hostile())[:900], "This is not a nanhunt report: SyntaxError"),
    "nan": ('{"format": "nanhunt.report", "version": 1, "steps_run": NaN}', "not a nanhunt report"),
    "type": ('{"format": "nanhunt.report", "version": 1, "steps_run": "x"}', "a whole number was"),
    "absent": ('{"format": "nanhunt.report", "version": 1}', "expected at “steps_run”"),
    "version": ('{"format": "nanhunt.report", "version": 2}', "version 2; this extension reads"),
    "markup": (f'{{"format": "nanhunt.report", "version": "{SCRIPT}"}}', "has version <script>"),
    "list": ("[]", "its “format” is missing"),
    "empty": ("", "not a nanhunt report"),
    "nested": (NESTED, "its “format” is missing"),
    "deep": (f'{{"format": "nanhunt.report", "version": {NESTED}}}', "has version […]"),
    "odd": ('{"format": "nanhunt.report", "version": {"toString": 1}}', "has version {…}"),
}


def test_what_is_no_report_is_refused_in_words(lab: Server, page: Page, errors: None) -> None:
    for name, (content, _) in REFUSED.items():
        (lab.home / f"{name}.nanhunt.json").write_text(content)
    open_page(lab, page, "")
    for name, (_, words) in REFUSED.items():
        page.get_by_role("listitem").filter(has_text=f"{name}.nanhunt.json").dblclick()
        alert = page.get_by_role("tabpanel", name=f"{name}.nanhunt.json").get_by_role("alert")
        expect(alert).to_contain_text(words)
        nothing_ran(page)


def test_another_version_in_a_notebook_falls_back_to_its_html_without_scripts(
    lab: Server, page: Page, errors: None
) -> None:
    path = lab.home / "later.ipynb"
    stories.write(path, {"format": "nanhunt.report", "version": 7})
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].outputs[0].data["text/html"] = f"<p id=later>a later report</p>{SCRIPT}"
    nbformat.write(notebook, path)
    open_page(lab, page, "later.ipynb")
    expect(page.locator(".nanhunt-Renderer-refusal")).to_contain_text("has version 7")
    expect(page.locator(".nanhunt-Renderer")).to_contain_text("a later report")
    page.wait_for_timeout(500)
    nothing_ran(page)


def test_a_file_of_20_mb_opens_and_the_page_lives_on(lab: Server, page: Page, errors: None) -> None:
    frame = Frame("encoder.layers.0." + "x" * 60, 1, "Linear", stories.CLEAN)
    huge = stories.report(stories.culprit(frames=(frame,) * 60_000)).save(lab.home / "huge")
    assert huge.stat().st_size > 20e6
    open_page(lab, page, huge.name)
    table = unfold(report_on(page), "Last modules")
    table.get_by_label("Order of the modules").select_option("calls")
    expect(table.get_by_role("status")).to_have_text("60,000 of 60,000 shown")
    assert table.locator("[role=row]").count() < 100


def test_a_notebook_whose_kernel_is_gone_and_that_nobody_trusts_shows_its_report(
    lab: Server, page: Page, errors: None
) -> None:
    path = lab.home / "gone.ipynb"
    stories.write(path, stories.report())
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"] = {"name": "gone", "display_name": "Gone"}
    nbformat.write(notebook, path)
    open_page(lab, page, path.name)
    page.locator(".jp-Dialog").get_by_role("button", name="No Kernel").click()
    expect(page.get_by_title("Notebook not trusted").first).to_be_attached()
    expect(report_on(page)).to_contain_text("Inf is born in step 40")
    expect(page.locator(".nanhunt-mark")).to_have_count(1)
    page.reload()
    expect(report_on(page)).to_contain_text("Inf is born in step 40")


@pytest.mark.alone
def test_ten_thousand_modules_open_within_a_second_and_scroll(
    lab: Server, page: Page, errors: None
) -> None:
    names = [f"blocks.{n // 100}.layers.{n % 100}" for n in range(10_000)]
    frames = tuple(Frame(name, 1, "Linear", stories.CLEAN) for name in names)
    many = stories.culprit(frames=frames, module=names[5_003])
    stories.report(many).save(lab.home / "many")
    open_page(lab, page, "")
    page.get_by_role("listitem").filter(has_text="many.nanhunt.json").wait_for()
    read = page.evaluate(OPEN_FILE, "many.nanhunt.json")
    assert read < 1000, f"the file took {read:.0f} ms"
    report = report_on(page)
    opened = page.evaluate(OPEN_MODULES)
    assert opened < 1000, f"the modules took {opened:.0f} ms"
    grid = report.get_by_role("treegrid", name="Modules")
    expect(grid.locator("[aria-selected=true]")).to_contain_text("▶ producer")
    table = report.locator(".nanhunt-ModuleTable")
    table.get_by_label("Order of the modules").select_option("calls")
    expect(table.get_by_role("status")).to_have_text("10,000 of 10,000 shown")
    slowest = page.evaluate(SCROLL)
    assert slowest < 100, f"a frame took {slowest:.0f} ms while scrolling"
    expect(grid.locator("[role=row]").last).to_contain_text("blocks.99.layers.99")
    assert grid.locator("[role=row]").count() < 60


# Opens a file by double click; resolves when its report is painted, with the milliseconds.
OPEN_FILE = """async name => {
  const items = [...document.querySelectorAll('.jp-DirListing-item')];
  const start = performance.now();
  const item = items.find(node => node.textContent.includes(name));
  item.dispatchEvent(new MouseEvent('dblclick', { bubbles: true, cancelable: true, button: 0 }));
  while (!document.querySelector('.nanhunt-Report')) {
    await new Promise(requestAnimationFrame);
  }
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""
# Unfolds the modules; resolves when they are painted, with the milliseconds that it took.
OPEN_MODULES = """async () => {
  const summaries = [...document.querySelectorAll('.nanhunt-Report summary')];
  const summary = summaries.find(node => node.textContent.startsWith('Last modules'));
  const start = performance.now();
  summary.click();
  while (!document.querySelector('.nanhunt-ModuleTable-row')) {
    await new Promise(requestAnimationFrame);
  }
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""
# Scrolls through the whole list; the milliseconds of the slowest frame but two.
SCROLL = """async () => {
  const list = document.querySelector('.nanhunt-VirtualList');
  const times = [];
  let last = performance.now();
  const frames = 80;
  for (let n = 1; n <= frames; n++) {
    list.scrollTop = (list.scrollHeight * n) / frames;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    times.push(now - last);
    last = now;
  }
  return times.sort((a, b) => a - b)[frames - 3];
}"""
