"""The JupyterLab extension of the built wheel, in JupyterLab in Chromium."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect
from readme_example import PROGRAM, README

from nanhunt.records.preflight import Fact, Preflight
from nanhunt.records.report import Source
from tests.notebook import stories
from tests.notebook.browsing import open_page, report_on, run_all_cells, shot, unfold
from tests.notebook.servers import Server, write_notebook

pytestmark = pytest.mark.browser

VERDICT = "Inf is born in step 40: aten.log.default in decoder.head (forward), cell [2], line 3"
TRAIN = "import torch\n\ndef loss_of(model, x):\n    return model(x).sqrt().mean()\n"


# -- the report -------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_report_in_a_saved_notebook_is_shown(
    lab: Server, page: Page, errors: None, theme: str
) -> None:
    stories.write(lab.home / f"{theme}.ipynb", stories.report())
    open_page(lab, page, f"{theme}.ipynb", theme)
    report = report_on(page)
    expect(report.locator("strong").first).to_have_text(VERDICT)
    for name in ("Evidence", "Remedies", "Last modules", "How the program", "Environment"):
        unfold(report, name)
    expect(report).to_contain_text("ruled out: not an overflow")
    expect(report.get_by_role("table", name="Remedies tried by replay")).to_contain_text("✓ yes")
    pictures = report.get_by_role("img", name="numbers from 2^")
    expect(pictures).to_have_count(3)
    report.locator("strong").first.scroll_into_view_if_needed()
    shot(page, f"report-{theme}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_report_file_opens_in_the_viewer(
    lab: Server, page: Page, errors: None, theme: str
) -> None:
    stories.report().save(lab.home / f"{theme}-run")
    open_page(lab, page, "", theme)
    page.get_by_role("listitem").filter(has_text=f"{theme}-run.nanhunt.json").dblclick()
    expect(report_on(page).locator("strong").first).to_have_text(VERDICT)
    shot(page, f"file-{theme}")


def test_modules_are_searched_filtered_and_walked_by_keyboard(
    lab: Server, page: Page, errors: None
) -> None:
    stories.report().save(lab.home / "modules")
    open_page(lab, page, "modules.nanhunt.json")
    table = unfold(report_on(page), "Last modules")
    grid = table.get_by_role("treegrid", name="Modules")
    rows = grid.locator("[role=row][aria-level]")
    expect(rows).to_have_count(13)
    table.get_by_label("Search modules by path or class").fill("norm")
    expect(rows.filter(has_text="LayerNorm")).to_have_count(2)
    expect(rows.filter(has_text="Attention")).to_have_count(0)
    table.get_by_label("only suspicious").check()
    expect(rows.filter(has_text="LayerNorm")).to_have_count(1)
    expect(rows.filter(has_text="△ near overflow")).to_have_count(1)
    table.get_by_label("Search modules by path or class").fill("")
    table.get_by_label("only suspicious").uncheck()
    table.get_by_label("Order of the modules").select_option("calls")
    expect(rows).to_have_count(6)
    table.get_by_label("Order of the modules").select_option("tree")
    grid.focus()
    for key in ("Home", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    expect(rows.nth(1)).to_have_attribute("aria-expanded", "false")
    expect(rows).to_have_count(5)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    active = grid.get_attribute("aria-activedescendant")
    expect(page.locator(f"#{active}")).to_contain_text("head (recomputed)")


def test_keys_in_the_module_list_are_not_the_notebooks(
    lab: Server, page: Page, errors: None
) -> None:
    stories.write(lab.home / "grid.ipynb", stories.report())
    open_page(lab, page, "grid.ipynb")
    grid = unfold(report_on(page), "Last modules").get_by_role("treegrid", name="Modules")
    grid.focus()
    for key in ("Home", "ArrowDown", "d", "d", "a", "Enter"):
        page.keyboard.press(key)
    rows = grid.locator("[role=row][aria-level]")
    expect(rows.nth(1)).to_have_attribute("aria-selected", "true")
    expect(rows.nth(1)).to_have_attribute("aria-expanded", "false")
    expect(page.locator(".jp-Cell")).to_have_count(3)
    expect(grid).to_be_focused()
    order = page.get_by_label("Order of the modules")
    order.focus()
    for key in ("ArrowDown", "d", "d"):
        page.keyboard.press(key)
    expect(order).to_have_value("calls")
    expect(order).to_be_focused()
    only = page.get_by_label("only suspicious")
    only.focus()
    for key in (" ", "d", "d"):
        page.keyboard.press(key)
    expect(only).to_be_checked()
    expect(page.locator(".jp-Cell")).to_have_count(3)


# -- from a report to the program -------------------------------------------------------------


def at_line(page: Page, line: int) -> Locator:
    """What the status bar says while the cursor is in a line."""
    return page.locator("#jp-bottom-panel").get_by_text(f"Ln {line}, Col 1", exact=True)


def test_the_link_goes_to_the_cell_and_the_line(lab: Server, page: Page, errors: None) -> None:
    stories.write(lab.home / "link.ipynb", stories.report())
    open_page(lab, page, "link.ipynb")
    report_on(page).locator(".nanhunt-Report-culprit button").click()
    active = page.locator(".jp-Cell.jp-mod-active")
    expect(active).to_contain_text("def step_fn")
    expect(at_line(page, 3)).to_be_visible()


def test_links_lead_through_a_long_notebook_and_back(lab: Server, page: Page, errors: None) -> None:
    fillers = [f"x{n} = {n}\n\n\n\nprint(x{n})" for n in range(150)]
    cells = ("import torch", stories.STEP, *fillers, "%nanhunt model step_fn")
    stories.write(lab.home / "long.ipynb", stories.report(), *cells)
    open_page(lab, page, "long.ipynb")
    page.get_by_text("1 finding").click()
    page.get_by_role("button", name="hunt in cell [153]").click()
    report = report_on(page)
    expect(report).to_be_in_viewport()
    expect(page.locator(".nanhunt-mark")).not_to_be_in_viewport()
    report.locator(".nanhunt-Report-culprit button").click()
    expect(page.locator(".nanhunt-mark")).to_be_in_viewport()
    expect(at_line(page, 3)).to_be_visible()


def test_the_link_opens_the_file_whose_line_it_is(lab: Server, page: Page, errors: None) -> None:
    (lab.home / "src").mkdir(exist_ok=True)
    (lab.home / "src" / "train.py").write_text(TRAIN)
    (lab.home / "train.py").write_text("\n\n\nanother = file\n")
    line = Source("/cluster/job7/src/train.py", 4, "return model(x).sqrt().mean()", "loss_of")
    stories.report(stories.culprit(source=line, stack=(line,))).save(lab.home / "far")
    open_page(lab, page, "far.nanhunt.json")
    report_on(page).locator(".nanhunt-Report-culprit button").click()
    editor = page.locator(".jp-FileEditor")
    expect(editor).to_contain_text("def loss_of")
    expect(editor.locator(".nanhunt-mark")).to_contain_text("return model(x).sqrt()")
    expect(at_line(page, 4)).to_be_visible()


def test_a_line_that_is_nowhere_is_said_to_be_nowhere(
    lab: Server, page: Page, errors: None
) -> None:
    line = Source("/cluster/gone.py", 4, "return gone", "f")
    stories.report(stories.culprit(source=line)).save(lab.home / "gone")
    open_page(lab, page, "gone.nanhunt.json")
    report_on(page).locator(".nanhunt-Report-culprit button").click()
    expect(page.locator(".Toastify")).to_contain_text("gone.py:4 was not found below the folder")


# -- the culprit line -------------------------------------------------------------------------


def test_the_culprit_line_is_marked_until_its_cell_is_edited_and_again_after_a_reload(
    lab: Server, page: Page, errors: None
) -> None:
    stories.write(lab.home / "mark.ipynb", stories.report())
    open_page(lab, page, "mark.ipynb")
    mark = page.locator(".jp-Cell .nanhunt-mark")
    expect(mark).to_have_count(1)
    expect(mark).to_contain_text("loss = (model(x) * 0).log().mean()")
    expect(mark).to_contain_text("✗ Inf")
    assert mark.get_attribute("title") == VERDICT
    expect(mark.get_by_role("img", name=VERDICT)).to_be_visible()
    page.locator(".jp-Cell", has_text="def step_fn").locator(".cm-line").first.click()
    page.keyboard.press("End")
    page.keyboard.type("  # hm")
    expect(mark).to_have_count(0)
    page.wait_for_timeout(600)  # longer than the pause after which outputs are read again
    expect(mark).to_have_count(0)
    page.reload()
    expect(mark).to_have_count(1)


def test_a_line_that_no_longer_reads_like_that_is_not_marked(
    lab: Server, page: Page, errors: None
) -> None:
    mended = stories.STEP.replace("* 0).log()", "* 1).exp()")
    cells = ("import torch", mended, "%nanhunt model step_fn")
    stories.write(lab.home / "mended.ipynb", stories.report(), *cells)
    open_page(lab, page, "mended.ipynb")
    report_on(page)
    page.wait_for_timeout(600)
    expect(page.locator(".nanhunt-mark")).to_have_count(0)


# -- the sidebar ------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_sidebar_lists_findings_and_facts_newest_first(
    lab: Server, page: Page, errors: None, theme: str
) -> None:
    warning = stories.culprit(severity="warning", kind="inf", source=None, module="decoder.norm")
    facts = Preflight(
        "Tagger",
        (
            Fact("thrown_away", "warning", "the result of x.to(device) is lost", stories.LINE),
            Fact("updates", "info", "1 optimizer update in one call of step_fn"),
        ),
    )
    path = lab.home / f"sidebar-{theme}.ipynb"
    preflight = "%nanhunt model step_fn --preflight"
    stories.write(path, stories.report(stories.culprit(), warning))
    stories.append(path, preflight, facts)
    open_page(lab, page, path.name, theme)
    report_on(page)
    page.keyboard.press("Alt+Shift+N")
    sidebar = page.get_by_role("region", name="nanhunt findings")
    expect(sidebar).to_be_visible()
    entries = sidebar.locator(".nanhunt-Sidebar-report")
    expect(entries).to_have_text(["preflight in cell [4]", "hunt in cell [3]"])
    expect(sidebar).to_contain_text("△the result of x.to(device) is lost")
    expect(sidebar).to_contain_text("✗Inf is born in step 40")
    shot(page, f"sidebar-{theme}")
    sidebar.get_by_role("button", name="Inf is born in step 40").first.click()
    expect(page.locator(".jp-Cell.jp-mod-active")).to_contain_text("def step_fn")
    sidebar.get_by_role("button", name="preflight in cell [4]").click()
    expect(page.locator(".jp-Cell.jp-mod-active")).to_contain_text("--preflight")
    page.keyboard.press("Alt+Shift+N")
    expect(sidebar).to_be_hidden()


def test_the_sidebar_follows_the_notebook_that_is_in_front(
    lab: Server, page: Page, errors: None
) -> None:
    stories.write(lab.home / "first.ipynb", stories.report())
    stories.write(lab.home / "second.ipynb", stories.report(stories.culprit(kind="nan")))
    open_page(lab, page, "first.ipynb")
    report_on(page)
    page.get_by_text("1 finding").click()
    sidebar = page.get_by_role("region", name="nanhunt findings")
    expect(sidebar).to_contain_text("first.ipynb")
    page.get_by_role("listitem").filter(has_text="second.ipynb").dblclick()
    expect(sidebar).to_contain_text("second.ipynb")
    expect(sidebar).to_contain_text("NaN is born")
    page.get_by_role("tab", name="first.ipynb").click()
    expect(sidebar).to_contain_text("Inf is born")
    page.add_locator_handler(
        page.locator(".jp-Dialog", has_text="Save your work"),
        lambda dialog: dialog.get_by_role("button", name="Discard").click(),
    )
    for name in ("first.ipynb", "second.ipynb"):
        tab = page.get_by_role("tab", name=name)
        tab.locator(".jp-icon-hover").click()
        expect(tab).to_have_count(0)
    expect(sidebar).to_contain_text("Open a notebook")


def test_an_open_sidebar_is_open_after_a_reload(lab: Server, page: Page, errors: None) -> None:
    stories.write(lab.home / "reloaded.ipynb", stories.report())
    open_page(lab, page, "reloaded.ipynb")
    page.get_by_text("1 finding").click()
    sidebar = page.get_by_role("region", name="nanhunt findings")
    expect(sidebar).to_contain_text("Inf is born")
    page.wait_for_timeout(2_000)  # JupyterLab keeps its layout about a second after a change
    page.reload()
    expect(sidebar).to_contain_text("Inf is born")


def test_keys_go_from_finding_to_finding(lab: Server, page: Page, errors: None) -> None:
    backward = Source("/tmp/ipykernel_7/1.py", 4, "loss.backward()", "step_fn", cell=2)
    both = stories.report(stories.culprit(), stories.culprit(source=backward, severity="warning"))
    stories.write(lab.home / "keys.ipynb", both)
    open_page(lab, page, "keys.ipynb")
    report_on(page)
    expect(page.locator(".nanhunt-mark")).to_have_count(2)
    for key, line in (("Alt+F8", 3), ("Alt+F8", 4), ("Alt+F8", 3), ("Alt+Shift+F8", 4)):
        page.keyboard.press(key)
        expect(at_line(page, line)).to_be_visible()


def test_the_commands_stand_in_the_palette_and_in_the_view_menu(
    lab: Server, page: Page, errors: None
) -> None:
    stories.write(lab.home / "menu.ipynb", stories.report())
    open_page(lab, page, "menu.ipynb")
    report_on(page)
    page.wait_for_selector('[data-status="idle"]')  # a kernel that starts closes menus
    page.get_by_role("menuitem", name="View", exact=True).click()
    page.locator(".lm-Menu-item", has_text="nanhunt").click()
    page.locator(".lm-Menu-item", has_text="Next Finding").click()
    expect(at_line(page, 3)).to_be_visible()
    page.keyboard.press("Control+Shift+c")
    palette = page.locator(".jp-ModalCommandPalette")
    palette.locator("input").fill("nanhunt show")
    palette.locator('[data-command="nanhunt:toggle-sidebar"]').click()
    expect(page.get_by_role("region", name="nanhunt findings")).to_be_visible()


# -- with a kernel ----------------------------------------------------------------------------

LINE = "return x + scores.softmax(-1) @ v"


@pytest.mark.slow
def test_a_hunt_in_a_live_notebook_marks_its_line_and_survives_a_restart(
    lab: Server, page: Page, errors: None
) -> None:
    """With the README's program; its screenshots are taken here (tools/readme_images.py)."""
    program = PROGRAM.search(README.read_text(encoding="utf-8"))
    assert program is not None
    hunt = "%nanhunt model step_fn --no-panel"
    write_notebook(lab.home / "live.ipynb", (program[1].strip(), "%load_ext nanhunt", hunt))
    page.set_viewport_size({"width": 1280, "height": 1900})
    open_page(lab, page, "live.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    mark = page.locator(".nanhunt-mark")
    run_all_cells(page, mark)
    expect(mark).to_contain_text(LINE)
    expect(mark).to_contain_text("✗ NaN")
    report = report_on(page)
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()  # "[1]:" and so on
    defined, hunted = prompts[0].strip(" :"), prompts[2].strip(" :")
    expect(report.locator("strong").first).to_contain_text(f"cell {defined}, line 14")
    expect(report.get_by_role("img", name="numbers from 2^")).to_have_count(2)
    page.get_by_text("1 finding").click()
    sidebar = page.get_by_role("region", name="nanhunt findings")
    entries = sidebar.locator(".nanhunt-Sidebar-report")
    expect(entries).to_have_text([f"hunt in cell {hunted}"])
    page.keyboard.press("Control+s")
    shot(page, "live-light")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel…", exact=True).click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    page.wait_for_selector('[data-status="idle"]', timeout=60_000)
    expect(entries).to_have_text([f"hunt in cell {hunted}"])
    expect(mark).to_have_count(1)
    page.get_by_role("menuitem", name="Edit", exact=True).click()
    page.get_by_text("Clear Outputs of All Cells", exact=True).click()
    expect(mark).to_have_count(0)
    expect(sidebar).to_contain_text("No report in the outputs")
    lab.choose_theme("dark")
    page.reload()  # as it was saved
    page.wait_for_selector('body[data-jp-theme-light="false"]', state="attached")
    report_on(page)
    expect(mark).to_have_count(1)
    expect(entries).to_have_text([f"hunt in cell {hunted}"])
    shot(page, "live-dark")
