"""A live hunt stepped from JupyterLab's sidebar, palette, menu and keyboard, in Chromium."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyterlab.commands import get_app_dir
from playwright.sync_api import Locator, Page, expect

from tests.notebook.browsing import open_page, run_all_cells, shot
from tests.notebook.servers import Server, serve, write_notebook

pytestmark = pytest.mark.browser

PROGRAM = """%load_ext nanhunt
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters())

def step_fn():
    optimizer.zero_grad()
    loss = model(torch.randn(16, 4)).pow(2).mean()
    loss.backward()
    optimizer.step()
    return loss"""
PAUSED = "hunt = %nanhunt model step_fn --paused --steps {steps}"
LONG = 10_000_000


@pytest.fixture(scope="module")
def lab(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab from the built wheel, with the widgets that the panel is made of."""
    home = tmp_path_factory.mktemp("live")
    widgets = Path(sysconfig.get_path("data")) / "share/jupyter/labextensions/@jupyter-widgets"
    extensions = tmp_path_factory.mktemp("extensions")
    (extensions / "@jupyter-widgets").symlink_to(widgets)
    options = [f"--LabApp.extra_labextensions_path={extensions}"]
    with serve(home, python=installed, options=options, JUPYTERLAB_DIR=get_app_dir()) as server:
        yield server


class Controls:
    """What a person sees of a live hunt outside the notebook."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sidebar = page.get_by_role("region", name="nanhunt findings")
        self.box = self.sidebar.get_by_role("group", name="Live hunt")
        self.status = page.locator(".nanhunt-Status button")

    def show(self) -> None:
        self.page.keyboard.press("Alt+Shift+n")
        expect(self.sidebar).to_be_visible()

    def button(self, label: str) -> Locator:
        return self.box.get_by_role("button", name=label, exact=True)

    def says(self, text: str, seconds: float = 30) -> None:
        expect(self.box).to_contain_text(text, timeout=seconds * 1000)

    def chosen_in_palette(self, label: str, command: str) -> None:
        """Gives a command by the palette."""
        self.page.keyboard.press("Control+Shift+c")
        palette = self.page.locator(".jp-ModalCommandPalette")
        palette.locator("input").fill(f"nanhunt {label}")
        item = palette.locator(f'[data-command="nanhunt:{command}"]')
        expect(item).to_contain_text(label)
        expect(item).not_to_have_class(re.compile("lm-mod-disabled"))
        item.click()

    def chosen_in_menu(self, label: str, command: str) -> None:
        """Gives a command by the menu View."""
        self.page.get_by_role("menuitem", name="View", exact=True).click()
        self.page.locator('.lm-Menu-item[data-type="submenu"]', has_text="nanhunt").click()
        item = self.page.locator(f'.lm-Menu-item[data-command="nanhunt:{command}"]')
        expect(item).to_contain_text(label)
        item.click()


def started(lab: Server, page: Page, name: str, steps: int = 5, theme: str = "light") -> Controls:
    """Opens a notebook, runs it, and waits for the live hunt in the sidebar."""
    write_notebook(lab.home / f"{name}.ipynb", [PROGRAM, PAUSED.format(steps=steps)])
    open_page(lab, page, f"{name}.ipynb", theme)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    run_all_cells(page, page.locator(".nanhunt-panel"))
    controls = Controls(page)
    controls.show()
    controls.says("start of step 0")
    return controls


@pytest.mark.slow
def test_every_shortcut_steps_a_live_hunt(lab: Server, page: Page, errors: None) -> None:
    controls = started(lab, page, "keys")
    for key, told in (
        ("Alt+Shift+F10", "start of step 1"),  # step
        ("Alt+F11", "Paused in step 1, before the model (Sequential)"),  # into
        ("Alt+F11", "before 0 (Linear)"),
        ("Alt+F10", "after 0 (Linear)"),  # over
        ("Alt+Shift+F11", "after the model (Sequential)"),  # out
        ("Alt+F9", "start of step 2"),  # continue
        ("Alt+Shift+F12", "was replayed: it ended as before, to the bit"),
        ("Alt+F7", "start of step 1"),  # back
        ("Alt+Shift+F6", "start of step 6"),  # run
        ("Alt+Shift+F7", "start of step 11"),  # hunt
    ):
        page.keyboard.press(key)
        controls.says(told)
    page.keyboard.press("Alt+Shift+F9")  # stop
    expect(controls.box).to_be_hidden()
    expect(page.locator(".nanhunt-panel [role=status]")).to_contain_text("Stopped")


@pytest.mark.slow
def test_every_command_of_the_palette_steps_a_live_hunt(
    lab: Server, page: Page, errors: None
) -> None:
    controls = started(lab, page, "palette")
    for label, command, told in (
        ("Step", "step", "start of step 1"),
        ("Step Into Module", "into", "Paused in step 1, before the model (Sequential)"),
        ("Step Over Module", "over", "after the model (Sequential)"),
        ("Back", "back", "start of step 1"),
        ("Step Into Module", "into", "before the model (Sequential)"),
        ("Step Into Module", "into", "before 0 (Linear)"),
        ("Step Out of Module", "out", "after the model (Sequential)"),
        ("Continue", "resume", "start of step 2"),
        ("Replay Step", "replay", "was replayed: it ended as before, to the bit"),
        ("Run Steps", "run", "start of step 7"),
        ("Hunt", "hunt", "start of step 12"),
    ):
        controls.chosen_in_palette(label, command)
        controls.says(told)
    controls.chosen_in_menu("Step", "step")
    controls.says("start of step 13")
    controls.chosen_in_palette("Stop Hunt", "stop")
    expect(controls.box).to_be_hidden()


@pytest.mark.parametrize("pause", ["Alt+F6", "palette", "button"])
def test_a_running_hunt_is_paused(lab: Server, page: Page, errors: None, pause: str) -> None:
    controls = started(lab, page, f"pause-{pause}", LONG)
    controls.button("Run").click()
    controls.says("Running: run")
    expect(controls.button("Step")).to_have_attribute("aria-disabled", "true")
    expect(controls.status).to_contain_text("Running: run")
    if pause == "palette":
        controls.chosen_in_palette("Pause", "pause")
    elif pause == "button":
        controls.button("Pause").click()
    else:
        page.keyboard.press(pause)
    controls.says("The training stands at the start of step")


def test_the_sidebars_buttons_keep_the_focus_and_follow_the_panel(
    lab: Server, page: Page, errors: None
) -> None:
    controls = started(lab, page, "buttons")
    controls.button("Into").focus()
    page.keyboard.press("Enter")
    controls.says("before the model (Sequential)")
    page.keyboard.press("Enter")
    controls.says("before 0 (Linear)")
    expect(controls.button("Into")).to_be_focused()
    page.locator(".nanhunt-panel").get_by_role("button", name="Continue").click()
    controls.says("start of step 1")
    expect(controls.button("Over")).to_have_attribute("aria-disabled", "true")
    controls.button("Over").dispatch_event("click")  # which is to do nothing
    controls.button("Step").click()
    controls.says("start of step 2")


@pytest.mark.slow
def test_the_sidebar_follows_notebook_switches_and_a_kernel_restart(
    lab: Server, page: Page, errors: None
) -> None:
    write_notebook(lab.home / "other.ipynb", ["1 + 1"])
    controls = started(lab, page, "switched")
    files = page.get_by_role("region", name="File Browser Section").or_(
        page.locator("#filebrowser")
    )
    files.first.get_by_text("other.ipynb").dblclick()
    expect(controls.sidebar.locator("h2")).to_have_text("other.ipynb")
    expect(controls.box).to_be_hidden()
    page.get_by_role("tab", name="switched.ipynb").click()
    controls.says("start of step 0")
    page.keyboard.press("Alt+Shift+F10")
    controls.says("start of step 1")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel…", exact=True).click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    expect(controls.box).to_be_hidden()
    page.wait_for_selector('[data-status="idle"]', timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    controls.says("start of step 0")
    controls.button("Step").click()
    controls.says("start of step 1")


# Puts a notebook on the kernel of another one, as a person does in the dialog "Select Kernel".
SHARE = """async ([path, other]) => {
  const sessions = await (await fetch('/api/sessions')).json();
  const kernel = { id: sessions.find(session => session.path === other).kernel.id };
  const answer = await fetch('/api/sessions', {
    method: 'POST',
    headers: { 'X-XSRFToken': document.cookie.match(/_xsrf=([^;]*)/)[1] },
    body: JSON.stringify({ path, name: path, type: 'notebook', kernel })
  });
  return answer.status;
}"""


def test_a_second_notebook_on_the_kernel_controls_the_hunt_also_alone(
    lab: Server, page: Page, errors: None
) -> None:
    write_notebook(lab.home / "second.ipynb", ["1 + 1"])
    controls = started(lab, page, "first")
    assert page.evaluate(SHARE, ["second.ipynb", "first.ipynb"]) == 201
    page.get_by_role("listitem").filter(has_text="second.ipynb").dblclick()
    expect(controls.sidebar.locator("h2")).to_have_text("second.ipynb")
    controls.says("start of step 0")
    page.keyboard.press("Alt+Shift+F10")
    controls.says("start of step 1")
    page.get_by_role("tab", name="first.ipynb").click()
    controls.button("Into").click()
    controls.says("Paused in step 1, before the model")
    page.get_by_role("tab", name="first.ipynb").locator(".jp-icon-hover").click()
    page.locator(".jp-Dialog").get_by_role("button", name="Discard").click()
    expect(controls.sidebar.locator("h2")).to_have_text("second.ipynb")
    controls.says("Paused in step 1, before the model")
    controls.button("Continue").click()
    controls.says("start of step 2")
    controls.button("Stop").click()
    expect(controls.box).to_be_hidden()


@pytest.mark.slow
def test_a_reloaded_page_and_a_second_tab_find_the_live_hunt(
    lab: Server, page: Page, errors: None
) -> None:
    controls = started(lab, page, "tabs")
    controls.button("Step").click()
    controls.says("start of step 1")
    page.keyboard.press("Control+s")
    page.reload()
    controls.status.wait_for(timeout=60_000)
    expect(controls.status).to_contain_text("start of step 1", timeout=60_000)
    assert page.context.browser is not None
    second = page.context.browser.new_context().new_page()
    second.goto(f"{lab.address}/lab/workspaces/second/tree/tabs.ipynb")
    other = Controls(second)
    expect(other.status).to_contain_text("start of step 1", timeout=60_000)
    second.locator(".jp-Notebook .jp-Cell").first.click()
    second.keyboard.press("Alt+F11")
    expect(other.status).to_contain_text("Paused in step 1")
    expect(controls.status).to_contain_text("Paused in step 1")
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.keyboard.press("Alt+F9")
    expect(controls.status).to_contain_text("start of step 2")
    expect(other.status).to_contain_text("start of step 2")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_controls_in_both_themes(lab: Server, page: Page, errors: None, theme: str) -> None:
    controls = started(lab, page, f"live-{theme}", theme=theme)
    controls.button("Into").click()
    controls.says("before the model (Sequential)")
    shot(page, f"live-control-{theme}")
