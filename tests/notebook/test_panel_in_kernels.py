"""The panel in real kernels: clicks at every moment, interrupts, restarts.

Every test runs in the newest kernel; what an older one does in its own way (see `every_kernel`)
runs there as well. `make kernels` runs all tests in all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.notebook.kernels import Kernel, in_kernels
from tests.notebook.panels import SETUP, Front, front

pytest_generate_tests = in_kernels


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest) -> Iterator[Front]:
    kernel: Kernel = request.param
    with front(kernel.python(), kernel.subshell) as made:
        assert made.value("__import__('ipykernel').__version__") == kernel.version
        if kernel.mended:
            made.run("from ipykernel.subshell_manager import SubshellManager")
            line = "SubshellManager._send_on_shell_channel.__module__"
            assert made.value(line) == "mended_ipykernel"
        made.run(SETUP)
        yield made


@pytest.fixture(autouse=True)
def left_as_found(page: Front) -> Iterator[None]:
    """Every test begins anew and leaves neither thread nor patch."""
    page.run("count[0], pause[0], fails_at[0] = 0, 0.0, 10 ** 9")
    yield
    page.run("%unload_ext nanhunt\n%load_ext nanhunt")
    assert page.value("left()") == []
    assert page.value("patched() == unpatched")


@pytest.mark.every_kernel
def test_a_click_while_nothing_runs_makes_one_step(page: Front) -> None:
    page.run("hunt = %nanhunt model step_fn --paused")
    page.waits_for("stands at the start of step 0")
    page.click("Step")
    page.waits_for("stands at the start of step 1")
    assert page.value("count[0]") == 1
    assert page.value("hunt.position") == 1


@pytest.mark.every_kernel
def test_clicks_while_training_runs_are_taken_at_once(page: Front) -> None:
    page.run("pause[0] = 0.05\nhunt = %nanhunt model step_fn --paused")
    page.click("Run")
    page.waits_for("Running: run")
    assert page.value("1 + 1") == 2, "cells run beside the training"
    page.click("Step")
    page.waits_for("the hunt is running")
    page.click("Pause")
    page.waits_for("stands at the start of step")
    steps = page.value("count[0]")
    time.sleep(0.3)
    assert page.value("count[0]") == steps < 100


def test_clicks_while_paused_inside_a_step(page: Front) -> None:
    page.run("hunt = %nanhunt model step_fn --paused")
    page.click("Into")
    page.waits_for("Paused in step 0, before the model")
    page.click("Into")
    page.waits_for("before 0 (Linear)")
    page.click("Over")
    page.waits_for("after 0 (Linear)")
    assert page.value("tuple(hunt.here.output.shape)") == (16, 8)
    page.click("Out")
    page.waits_for("after the model")
    page.click("Continue")
    page.waits_for("stands at the start of step 1")
    assert page.value("hunt.here is None")


@pytest.mark.every_kernel
def test_a_click_while_a_cell_runs_waits_or_runs_beside_it_and_neither_blocks(page: Front) -> None:
    page.run("hunt = %nanhunt model step_fn --paused")
    busy = page.start("time.sleep(1.5); print('cell done')")
    page.click("Step")
    page.waits_for("stands at the start of step 1", 20)
    page.until(lambda: "cell done" in page.text(busy), 20, "the cell's end")
    assert page.text(busy) == "cell done\n"


@pytest.mark.every_kernel
def test_what_steps_print_stands_in_the_panels_log_and_in_no_cell(page: Front) -> None:
    page.run("pause[0] = 0.02\nhunt = %nanhunt model step_fn --paused --steps 10")
    page.click("Run")
    other = page.start("for i in range(10): print('cell', i); time.sleep(0.05)")
    page.until(lambda: "printed by step 10" in page.log, 30, "the log")
    page.until(lambda: "cell 9" in page.text(other), 30, "the cell")
    assert "printed" not in "".join(map(page.text, page.outputs))
    assert "cell" not in page.log


@pytest.mark.every_kernel
def test_an_interrupt_between_cells_ends_the_worker_and_undoes_its_step(page: Front) -> None:
    page.run("pause[0] = 0.05\nhunt = %nanhunt model step_fn --paused")
    page.run("before = [p.clone() for p in model.parameters()]")
    page.click("Into")
    page.waits_for("Paused in step 0")
    page.manager.interrupt_kernel()
    page.waits_for("Stopped")
    assert page.value("left()") == []
    assert page.value("all(map(torch.equal, before, model.parameters()))")
    assert page.value("hunt.closed")


@pytest.mark.every_kernel
def test_an_interrupt_while_training_runs_ends_it_and_one_of_a_cell_does_not(page: Front) -> None:
    page.run("pause[0] = 0.05\nhunt = %nanhunt model step_fn --paused --steps 100000")
    page.click("Run")
    page.waits_for("Running: run")
    cell = page.start("print('asleep', flush=True)\ntime.sleep(30)")
    page.until(lambda: "asleep" in page.text(cell), 20, "the cell's start")
    page.manager.interrupt_kernel()
    page.until(lambda: cell in page._idle, 20, "the interrupted cell")
    assert [o["ename"] for o in page.outputs[cell] if o["type"] == "error"] == ["KeyboardInterrupt"]
    assert "nanhunt-step" in page.value("threads()")
    page.manager.interrupt_kernel()
    page.waits_for("Stopped")
    assert page.value("left()") == []


def test_as_many_steps_can_be_undone_as_are_asked_for(page: Front) -> None:
    for asked, kept in (("--back 2", 2), ("", 3)):
        page.run(f"hunt = %nanhunt model step_fn --paused {asked}")
        page.run("for _ in range(4): hunt.step()")
        assert page.value("hunt.memory[1]") == kept
    page.run("hunt.back(); hunt.back()")
    page.waits_for("start of step 2")


def test_running_the_cell_again_ends_the_panel_before_it(page: Front) -> None:
    page.run("hunt = %nanhunt model step_fn --paused")
    page.click("Into")
    page.waits_for("Paused in step 0")
    page.run("first, hunt = hunt, None\nhunt = %nanhunt model step_fn --paused")
    assert page.value("first.closed, hunt.closed") == (True, False)
    assert page.value("threads()") == ["nanhunt-panel"]
    page.click("Step")
    page.waits_for("stands at the start of step 1")


def test_stop_releases_everything(page: Front) -> None:
    page.run("hunt = %nanhunt model step_fn --paused")
    page.click("Into")
    page.waits_for("Paused in step 0")
    page.click("Stop")
    page.waits_for("Stopped")
    assert page.value("left()") == []
    assert page.value("hunt.memory[0]") == 0


@pytest.mark.parametrize("ending", ["Stop", "%unload_ext nanhunt", "cell"])
def test_after_the_end_nothing_keeps_the_model_alive(page: Front, ending: str) -> None:
    page.run("""
import gc, weakref
def made():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    def step():
        optimizer.zero_grad()
        model(torch.randn(8, 4)).pow(2).mean().backward()
        optimizer.step()
    return model, step
theirs, their_step = made()
kept = weakref.ref(theirs)
hunt = %nanhunt theirs their_step --paused
""")
    page.click("Step")
    page.waits_for("start of step 1")
    page.click("Into")
    page.waits_for("Paused in step 1")
    if ending == "Stop":
        page.click("Stop")
        page.waits_for("Stopped")
        assert page.value("left()") == []
    else:
        page.run(ending if ending != "cell" else "other = %nanhunt model step_fn --paused")
    page.run("del theirs, their_step, hunt")
    assert page.value("gc.collect() >= 0 and kept() is None")


@pytest.mark.every_kernel
def test_a_hunt_at_once_shows_progress_and_leaves_the_panel_at_the_failing_step(
    page: Front,
) -> None:
    outputs = page.run("fails_at[0] = 5\nreport = %nanhunt model step_fn --steps 20")
    assert not [o for o in outputs if o["type"] == "error"]
    page.waits_for("The training stands at the start of that step.")
    assert page.value("report.finding.step, report.finding.op") == (4, "aten.log.default")
    twins = [d for d in page.displays.values() if "aten.log" in d.get("text/plain", "")]
    assert len(twins) == 1, "the report was assigned, so it is shown beside the panel"
    page.click("Replay step")
    page.waits_for("it ended as before, to the bit")
    page.click("Back")
    page.waits_for("stands at the start of step 3")


@pytest.mark.every_kernel
def test_clicks_during_a_hunt_at_once_never_make_a_step_and_pause_ends_it(page: Front) -> None:
    hunting = page.start("pause[0] = 0.05\nreport = %nanhunt model step_fn --steps 60")
    page.waits_for("Running: step")
    for label in ("Step", "Into", "Back", "Run"):
        page.click(label)
    page.click("Pause")
    page.until(lambda: hunting in page._idle, 60, "the hunt's end")
    assert not [o for o in page.outputs[hunting] if o["type"] == "error"]
    steps, made = page.value("report.steps_run, count[0]")
    # Where clicks wait for the cell they are taken after it, one by one.
    assert steps < 60 if page._subshell is not None else steps == 60
    assert page._subshell is None or made == steps


AROUND = {
    "autocast": "torch.autocast('cpu', dtype=torch.bfloat16)",
    "no_grad": "torch.no_grad()",
    "default device": "torch.device('cpu')",
    "deterministic": "deterministic()",
}


@pytest.mark.every_kernel
@pytest.mark.parametrize("name", AROUND)
def test_a_click_makes_the_very_step_that_the_cell_would_have_made(page: Front, name: str) -> None:
    page.run(f"""
import contextlib
@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
seen = []
def surrounded():
    seen.append((str((torch.ones(2, 2) @ torch.ones(2, 2)).dtype), torch.is_grad_enabled()))
    with torch.enable_grad():
        return step_fn()
def around(): return {AROUND[name]}
def fresh():
    torch.manual_seed(3); count[0] = 0; optimizer.state.clear(); seen.clear()
    model.apply(lambda m: hasattr(m, "reset_parameters") and m.reset_parameters())
fresh()
for _ in range(2):
    with around(): surrounded()
bare, told = [p.clone() for p in model.state_dict().values()], list(seen)
fresh()
with around():
    hunt = get_ipython().run_line_magic("nanhunt", "model surrounded --paused")
""")
    page.click("Step")
    page.waits_for("start of step 1")
    page.click("Into")
    page.waits_for("Paused in step 1")
    page.click("Continue")
    page.waits_for("start of step 2")
    assert page.value("seen == told"), page.value("seen, told")
    assert page.value("all(map(torch.equal, bare, model.state_dict().values()))")


def test_a_later_cell_that_steps_in_code_is_seen_in_the_panel(page: Front) -> None:
    page.run("hunt = %nanhunt model step_fn --paused")
    page.run("hunt.into(); hunt.into()")
    page.waits_for("Paused in step 0, before 0 (Linear)")
    page.run("hunt.resume(); hunt.step()")
    page.waits_for("start of step 2")


def test_a_report_that_is_the_cells_result_is_not_shown_twice(page: Front) -> None:
    page.displays.clear()
    outputs = page.run("fails_at[0] = 2\n%nanhunt model step_fn")
    assert [o["type"] for o in outputs].count("execute_result") == 1
    assert not [d for d in page.displays.values() if "aten.log" in d.get("text/plain", "")]


def test_a_hunt_from_the_panel_finds_what_nanhunt_hunt_finds(page: Front) -> None:
    again = "torch.manual_seed(1); model.apply(lambda m: hasattr(m, 'reset_parameters') and "
    again += "m.reset_parameters()); optimizer.state.clear(); count[0] = 0"
    page.run(f"fails_at[0] = 4\n{again}\nexpected = __import__('nanhunt').hunt(model, step_fn)")
    page.run(f"{again}\nhunt = %nanhunt model step_fn --paused --no-progress")
    page.click("Step")
    page.waits_for("start of step 1")
    page.click("Hunt")
    page.waits_for("The training stands at the start of that step.", 60)
    mine, theirs = "hunt.report.finding", "expected.finding"
    fields = "step kind phase module op node cause explanation replay"
    for field in [f for f in fields.split() if f != "replay"]:
        assert page.value(f"{mine}.{field} == {theirs}.{field}"), field
    assert page.value(f"[t.cured for t in {mine}.trials] == [t.cured for t in {theirs}.trials]")


def test_an_exception_of_the_step_is_shown_as_theirs_and_the_next_click_works(page: Front) -> None:
    page.run("def broken():\n    step_fn()\n    if count[0] == 2: raise KeyError('mine')")
    page.run("hunt = %nanhunt model broken --paused")
    page.click("Step")
    page.waits_for("start of step 1")
    page.click("Step")
    page.waits_for("step_fn raised KeyError: 'mine'; the step was undone")
    page.until(lambda: "in broken" in page.log, 20, "the traceback in the log")
    assert "nanhunt/core" not in page.log
    page.run("count[0] = 5")
    page.click("Step")
    page.waits_for("start of step 2")


@pytest.mark.every_kernel
def test_a_restart_while_paused_leaves_a_kernel_that_works(page: Front) -> None:
    page.run("hunt = %nanhunt model step_fn --paused")
    page.click("Into")
    page.waits_for("Paused in step 0")
    page.manager.restart_kernel(now=False)
    page.client.wait_for_ready(timeout=60)
    if page._subshell is not None:
        page._subshell = page._make_subshell()
    page.widgets.clear()
    page.run(SETUP)
    page.run("hunt = %nanhunt model step_fn --paused")
    page.click("Step")
    page.waits_for("start of step 1")
