"""The panel in real JupyterLab in Chromium: every control, mouse and keyboard, both themes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.notebook.browsing import run_all_cells, shot
from tests.notebook.servers import ROOT, Server, serve, write_notebook

pytestmark = pytest.mark.browser

PROGRAM = """%load_ext nanhunt
import nanhunt, torch
from torch import nn

class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Block(3, 8)
        self.body = nn.Sequential(Block(8, 8), Block(8, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))

def entropy(p):
    return -(p.log() * p).sum(-1).mean()

torch.manual_seed(0)
model = Net()
optimizer = torch.optim.Adam(model.parameters())
count = [0]

def step_fn():
    count[0] += 1
    x = torch.randn(4, 3, 8, 8)
    optimizer.zero_grad()
    p = model(x).softmax(-1)
    if count[0] == 8:
        p = p * (p > 2)
    loss = entropy(p)
    print("step", count[0], "loss", loss.item())
    loss.backward()
    optimizer.step()
    return loss"""
PAUSED = "hunt = %nanhunt model step_fn --paused --steps 20"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A JupyterLab."""
    home = tmp_path_factory.mktemp("lab")
    with serve(home, PYTHONPATH=str(ROOT)) as server:
        yield server


class Panel:
    """What a person sees and does."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.box = page.locator(".nanhunt-panel")
        self.status = self.box.locator("[role=status]")
        self.modules = self.box.locator(".nanhunt-modules select")

    def button(self, label: str) -> Locator:
        # Before the words stands an icon, a letter of a font of its own.
        return self.box.get_by_role("button", name=re.compile(rf"^\W*{label}$"))

    def click(self, label: str) -> None:
        expect(self.button(label)).to_be_enabled()
        self.button(label).click()

    def says(self, text: str, seconds: float = 30) -> None:
        expect(self.status).to_contain_text(text, timeout=seconds * 1000)

    def choose(self, kind: str) -> None:
        self.box.locator("select").filter(has_text="BatchNorm").first.select_option(label=kind)

    def picture(self, label: str) -> Locator:
        return self.box.locator(f"svg[role=img][aria-label^='{label}']")


def opened(lab: Server, page: Page, name: str, theme: str = "light") -> Panel:
    """Opens a new notebook, runs it all, and waits for the panel."""
    lab.choose_theme(theme)
    magic = PAUSED if name == "paused" else "%nanhunt model step_fn --steps 20"
    write_notebook(lab.home / f"{name}.ipynb", [PROGRAM, magic])
    page.goto(f"{lab.address}/lab/tree/{name}.ipynb?reset")
    body = f'body[data-jp-theme-light="{str(theme == "light").lower()}"]'
    page.wait_for_selector(body, state="attached", timeout=90_000)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    panel = Panel(page)
    run_all_cells(page, panel.box)
    panel.box.scroll_into_view_if_needed()
    return panel


@pytest.fixture
def errors(page: Page) -> Iterator[list[str]]:
    """Errors of the page, of which there are to be none."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    yield found
    assert found == []


def test_every_control_does_what_it_says(lab: Server, page: Page, errors: Any) -> None:
    panel = opened(lab, page, "paused")
    panel.says("stands at the start of step 0")
    expect(panel.button("Continue")).to_be_disabled()
    panel.click("Step")
    panel.says("start of step 1")
    expect(panel.box.locator("pre")).to_contain_text("step 1 loss")
    panel.click("Into")
    panel.says("Paused in step 1, before the model (Net)")
    panel.click("Into")
    panel.says("before stem (Block)")
    panel.click("Over")
    panel.says("after stem (Block)")
    expect(panel.box.get_by_role("table", name="tensors here")).to_contain_text("[4, 8, 8, 8]")
    panel.click("Out")
    panel.says("after the model (Net)")
    panel.click("Back")
    panel.says("start of step 1")
    panel.click("Back")
    panel.says("start of step 0")
    panel.click("Run")
    panel.says("Step 7 went bad and was undone: loss")
    panel.click("Replay step")
    expect(panel.box).to_contain_text("it ended as before, to the bit")
    panel.click("Hunt")
    panel.says("Inf is born in step 7: aten.log.default", 60)
    expect(page.locator(".nanhunt-Report").first).to_contain_text("Inf is born in step 7")
    panel.click("Stop")
    panel.says("Stopped")
    for label in ("Step", "Run", "Into", "Back", "Stop"):
        expect(panel.button(label)).to_be_disabled()


def test_breakpoints_stop_where_they_should_and_go_away(
    lab: Server, page: Page, errors: Any
) -> None:
    panel = opened(lab, page, "paused")
    where, condition = (
        panel.box.get_by_placeholder("name, class"),
        panel.box.get_by_placeholder("nan,"),
    )
    where.fill("body.*")
    condition.fill("absmax > 1e-3")
    condition.press("Tab")
    panel.click("Add")
    expect(panel.box.locator("select").filter(has_text="body.* if absmax")).to_be_visible()
    panel.click("Step")
    panel.says("Paused in step 0, before body.0 (Block) — breakpoint body.*")
    panel.click("Continue")
    panel.says("before body.0.conv (Conv2d)")
    where.fill("nowhere")
    where.press("Tab")
    panel.click("Add")
    expect(panel.box).to_contain_text("no module is called 'nowhere'")
    panel.click("Remove")
    expect(panel.box.locator("select").filter(has_text="no breakpoints")).to_be_visible()
    panel.click("Continue")
    panel.says("start of step 1")


def test_the_list_and_the_pictures_follow_and_the_keyboard_does_it_all(
    lab: Server, page: Page, errors: Any
) -> None:
    panel = opened(lab, page, "paused")
    panel.button("Step").focus()
    page.keyboard.press("Enter")
    panel.says("start of step 1")
    options = panel.modules.locator("option")
    expect(options).to_have_count(12)
    expect(options.nth(1)).to_contain_text("clean")
    panel.modules.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(panel.picture("activation of stem.conv")).to_be_visible()
    kinds = ("Gradient", "Weights", "Activation over time", "All modules over time")
    for kind, label in zip(kinds, ("gradient", "weights", "history", "timeline"), strict=True):
        panel.choose(kind)
        expect(panel.picture(label)).to_be_visible()
    panel.box.get_by_placeholder("search modules").fill("norm")
    expect(options).to_have_count(3)
    panel.modules.select_option(index=2)
    panel.choose("BatchNorm")
    expect(panel.picture("batch norm of body.1.norm")).to_be_visible()
    panel.box.get_by_label("only suspicious").check()
    expect(options).to_have_count(0)


def test_a_running_hunt_is_paused_by_a_click(lab: Server, page: Page, errors: Any) -> None:
    panel = opened(lab, page, "paused")
    panel.box.get_by_role("spinbutton", name="steps").fill("100000")
    panel.box.get_by_role("spinbutton", name="steps").press("Tab")
    panel.box.get_by_placeholder("name, class").fill("head")
    panel.box.get_by_placeholder("nan,").fill("step == 3")
    panel.box.get_by_placeholder("nan,").press("Tab")
    panel.click("Add")
    panel.click("Run")
    panel.says("Paused in step 3, before head (Linear)")
    panel.click("Step")
    panel.says("start of step 4")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_hunt_at_once_leaves_panel_and_report_in_the_cell(
    lab: Server, page: Page, errors: Any, theme: str
) -> None:
    page.set_viewport_size({"width": 1680, "height": 1500})
    panel = opened(lab, page, theme, theme)
    panel.says("Inf is born in step 7: aten.log.default", 60)
    report = page.locator(".nanhunt-Report")
    expect(report).to_have_count(1)
    expect(panel.button("Replay step")).to_be_enabled()
    ink = panel.status.evaluate("node => getComputedStyle(node).color")
    channels = [float(part) for part in ink.partition("(")[2].rstrip(")").split(",")[:3]]
    assert (min(channels) > 180) == (theme == "dark"), f"{ink} cannot be read"
    panel.modules.select_option(index=1)
    expect(panel.picture("activation of stem")).to_be_visible()
    panel.box.evaluate("node => node.scrollIntoView()")
    shot(page, f"panel-{theme}")
    panel.choose("Activation over time")
    panel.click("Into")
    panel.says("Paused in step 7")
    panel.box.evaluate("node => node.scrollIntoView()")
    shot(page, f"panel-paused-{theme}")
    page.keyboard.press("Control+s")
    page.wait_for_timeout(1500)
    page.reload()
    expect(page.locator(".nanhunt-Report")).to_contain_text("Inf is born in step 7", timeout=60_000)
