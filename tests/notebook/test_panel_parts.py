"""Parts of the panel that need no kernel: the list's rows, the log; and life without widgets."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn

import nanhunt
from nanhunt.core.tensors.binning import histogram
from nanhunt.panel import board
from nanhunt.panel.board import PAGE, Board
from nanhunt.panel.log import Log
from nanhunt.panel.picture import Picture

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """import torch
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def step_fn():
    optimizer.zero_grad()
    (model(torch.ones(4, 2)) * 0).log().sum().backward()
    optimizer.step()
"""


def state(values: list[float], dtype: torch.dtype = torch.float32) -> board.State:
    return board.state_of(histogram(torch.tensor(values, dtype=dtype)), None)


def test_each_state_has_its_own_word_and_is_told_by_glyph_word_and_colour() -> None:
    assert state([1.0, 2.0]) is board.CLEAN
    assert state([1.0, float("nan"), float("inf")]) is board.NAN
    assert state([1.0, -float("inf")]) is board.INF
    assert state([60_000.0], torch.float16) is board.NEAR_OVERFLOW
    assert state([60_000.0]) is board.CLEAN
    assert state([6e-8, 1e-7, 1.0], torch.float16) is board.UNDERFLOW
    half = torch.view_as_complex(torch.ones(2, 2, dtype=torch.float16))
    assert board.state_of(histogram(half), None) is board.COMPLEX_HALF
    assert board.state_of(None, None) is board.NOT_RUN
    bad = histogram(torch.tensor([float("nan")]))
    assert board.state_of(histogram(torch.ones(2)), bad) is board.NAN_GRADIENT
    states = [s for s in vars(board).values() if isinstance(s, board.State)]
    assert len({s.word for s in states}) == len(states) == 10


def test_a_picture_too_rich_for_vectors_is_a_bitmap_within_one_message() -> None:
    model = nn.Sequential(*(nn.ReLU() for _ in range(3_000)), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step_fn() -> None:
        optimizer.zero_grad()
        model(torch.rand(2, 2)).sum().backward()
        optimizer.step()

    hunt = nanhunt.Hunt(model, step_fn, progress=False)
    hunt.statistics = True
    hunt.run(4)
    html = Picture(hunt).html("timeline", None)
    hunt.close()
    assert len(html) < 64_000
    data = re.search(r'src="data:image/png;base64,([^"]+)"', html)
    assert data is not None
    assert base64.b64decode(data[1]).startswith(b"\x89PNG")


def test_the_producer_of_a_finding_stands_out_and_order_search_and_tree_work() -> None:
    class Log_(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 0).log()

    model = nn.Sequential(nn.Linear(2, 2), Log_())
    model.unused = nn.Linear(1, 1)
    model.forward = lambda x: model[1](model[0](x))  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(3, 2)).sum().backward()
        optimizer.step()

    with nanhunt.Hunt(model, step, trials=False) as hunt:
        hunt.step()
        hunt.replay()
        rows = Board(hunt)
        words = {row.path: row.state.word for row in rows.rows()}
        assert words["1"] == "producer"
        assert words["unused"] == "not run"
        assert [row.path for row in rows.rows()][-1] == "unused"
        assert [row.path for row in rows.rows(as_tree=True)] == ["", "0", "1", "unused"]
        assert [row.path for row in rows.rows(search="LINEAR")] == ["0", "unused"]
        assert "unused" not in [row.path for row in rows.rows(suspicious=True)]


def test_ten_thousand_modules_make_rows_of_less_than_one_message_a_page() -> None:
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(10_000)])
    hunt = nanhunt.Hunt(model, lambda: None)
    rows = Board(hunt).rows()
    assert len(rows) == 10_001
    assert sum(len(row.text(44, False)) for row in rows[:PAGE]) < 40_000
    hunt.close()


def test_the_log_keeps_the_last_lines_as_a_terminal_shows_them() -> None:
    log = Log()
    log.write("10%\r50%\r100%\ndone <b>\n")
    log.write("open")
    assert log.html() == "100%\ndone &lt;b&gt;\nopen"
    for number in range(1000):
        log.write(f"{number}\n")
    assert log.html().endswith("999")
    assert len(log.html().splitlines()) == 200


@pytest.mark.parametrize("options", ["", "--paused"])
def test_a_terminal_has_the_report_alone(tmp_path: Path, options: str) -> None:
    script = tmp_path / "program.ipy"
    script.write_text(
        f"%load_ext nanhunt\n{PROGRAM}\nreport = %nanhunt model step_fn {options}\nprint(report)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", str(script)],
        capture_output=True, text=True, timeout=120,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
    )  # fmt: skip
    told = "--paused opens the panel, which needs a notebook" if options else "aten.log.default"
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("widgets", [True, False], ids=["with ipywidgets", "without"])
def test_under_nbconvert_the_report_stands_in_the_notebook(tmp_path: Path, widgets: bool) -> None:
    hidden = "import sys; sys.modules['ipywidgets'] = None\n"
    cells = [f"{'' if widgets else hidden}%load_ext nanhunt\n{PROGRAM}",
             "report = %nanhunt model step_fn" if widgets else "%nanhunt model step_fn",
             "print('next cell')"]  # fmt: skip
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbformat.write(notebook, tmp_path / "in.ipynb")
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute",
         str(tmp_path / "in.ipynb"), "--output", "out.ipynb"],
        check=True, capture_output=True, timeout=180, cwd=tmp_path,
        env={**__import__("os").environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    done = nbformat.read(tmp_path / "out.ipynb", 4)
    outputs = done.cells[1].outputs
    reports = [o for o in outputs if "aten.log" in str(o.get("data", {}).get("text/html", ""))]
    assert len(reports) == 1
    shown = [o for o in outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
    assert len(shown) == widgets
    assert done.cells[2].outputs[0].text == "next cell\n"
