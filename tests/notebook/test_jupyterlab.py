"""The magics in real JupyterLab in Chromium, light and dark; screenshots in build/screenshots."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.notebook.browsing import run_all_cells, shot
from tests.notebook.servers import ROOT, Server, serve, write_notebook

CELLS = [
    "%load_ext nanhunt\n"
    "import torch\n"
    "model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))\n"
    "optimizer = torch.optim.Adam(model.parameters())\n"
    "x = torch.ones(8, 2)",
    "def step_fn():\n"
    "    optimizer.zero_grad()\n"
    "    loss = (model(x) * 0).log().mean()\n"
    "    loss.backward()\n"
    "    optimizer.step()\n"
    "%nanhunt model step_fn",
    "%%nanhunt model\n"
    "for n in range(6):\n"
    "    optimizer.zero_grad()\n"
    "    model(x * 10.0 ** (39 * (n == 4))).mean().backward()\n"
    "    optimizer.step()",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A JupyterLab with a notebook for either theme, and without our own extension."""
    home = tmp_path_factory.mktemp("lab")
    for theme in ("light", "dark"):
        write_notebook(home / f"{theme}.ipynb", CELLS)
    alone = ("--LabApp.labextensions_path=[]", "--LabApp.extra_labextensions_path=[]")
    with serve(home, options=alone, PYTHONPATH=str(ROOT)) as server:
        yield server


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_magics_show_their_report_under_the_cell(lab: Server, page: Page, theme: str) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    lab.choose_theme(theme)
    page.goto(f"{lab.address}/lab/tree/{theme}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    body = f'body[data-jp-theme-light="{str(theme == "light").lower()}"]'
    page.wait_for_selector(body, state="attached")
    reports = page.locator(".jp-OutputArea-output section.nanhunt")
    run_all_cells(page, reports.nth(1))
    first, second = reports.nth(0), reports.nth(1)
    assert "Inf is born in step 0: aten.log.default" in first.inner_text()
    assert "line 3" in first.locator("pre").first.inner_text()
    assert "step 4" in second.inner_text()
    assert first.locator("details").count() >= 2
    ink = first.evaluate("node => getComputedStyle(node).color")
    assert (min(_rgb(ink)) > 180) == (theme == "dark"), f"{ink} cannot be read"
    first.scroll_into_view_if_needed()
    shot(page, f"magics-{theme}")
    assert errors == []


def _rgb(colour: str) -> list[float]:
    return [float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
