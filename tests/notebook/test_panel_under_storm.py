"""Thousands of random clicks and key presses, a model of a thousand modules, and the traffic."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator

import pytest

from nanhunt.panel.controls import CONTROLS
from nanhunt.panel.face import KINDS
from tests.notebook.panels import SETUP, Front, front

CLICKS = 2_000
LABELS = [each.button for each in CONTROLS if each.name != "stop"]

DEEP = """
class Deep(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(count))
        self.head = nn.Linear(4, 1)
    def forward(self, x):
        for layer in self.layers:
            x = x + 0.01 * layer(x)
        return self.head(x)
model = Deep({count})
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
def deep_step():
    optimizer.zero_grad()
    model(torch.randn(8, 4)).pow(2).mean().backward()
    optimizer.step()
"""


def maps(page: Front) -> set[str]:
    """The widgets that show the map of all modules by step; those of old panels stay."""
    label = "timeline of all modules"
    return {key for key, state in page.widgets.items() if label in str(state.get("value"))}


@pytest.fixture(scope="module")
def page() -> Iterator[Front]:
    with front(sys.executable) as made:
        made.run(SETUP)
        yield made


@pytest.mark.slow
def test_two_thousand_random_clicks_leave_the_training_as_if_it_had_never_been_watched(
    page: Front,
) -> None:
    rng = random.Random(20261121)
    page.run("pause[0] = 0.002\nhunt = %nanhunt model step_fn --paused --steps 3 --no-trials")
    page.run(
        "start = [p.clone() for p in model.parameters()]\nrandom_state = torch.get_rng_state()"
    )
    search = page.find(_model_name="TextModel", placeholder="search modules")
    where = page.find(_model_name="TextModel", description="break at")
    condition = page.find(_model_name="TextModel", description="if")
    kind = page.find(_model_name="DropdownModel", description="show")
    boxes = [page.find(_model_name="CheckboxModel", description=d)
             for d in ("statistics", "only suspicious", "as a tree")]  # fmt: skip
    rows = page.find(_model_name="SelectModel")
    for number in range(CLICKS):
        chance = rng.random()
        if chance < 0.7:
            page.click(rng.choice(LABELS))
        elif chance < 0.76:
            page.click(rng.choice(["Add", "Remove", "Remove"]))
        elif chance < 0.82:
            page.set(where, value=rng.choice(["0", "1", "Linear", "*", "nowhere", "", "["]))
        elif chance < 0.86:
            page.set(condition, value=rng.choice(["", "nan", "absmax > 2", "absmx", "zeros > 10%"]))
        elif chance < 0.9:
            page.set(search, value=rng.choice(["", "lin", "zzz", "0"]))
        elif chance < 0.94:
            page.set(kind, index=rng.randrange(len(KINDS)))
        elif chance < 0.97:
            page.set(rng.choice(boxes), value=rng.random() < 0.5)
        else:
            page.set(rows, index=rng.choice([None, 0, 1, 2]))
        page.read(0.003)
        if number % 250 == 249:
            assert page.value("1 + 1") == 2, "the kernel answers"
    page.run("hunt.stepper.end(); hunt.clear_breakpoints()")
    page.run("assert hunt.stepper.state == 'idle', hunt.stepper.state")
    steps = page.value("hunt.position")
    assert steps == page.value("count[0]")
    page.run("walked = [p.clone() for p in model.parameters()]")
    page.click("Stop")
    page.waits_for("Stopped")
    page.run("optimizer.state.clear(); count[0] = 0; pause[0] = 0")
    page.run("with torch.no_grad(): [p.copy_(s) for p, s in zip(model.parameters(), start)]")
    page.run("model[1].reset_running_stats(); torch.set_rng_state(random_state)")
    page.run(f"for _ in range({steps}): step_fn()", 120)
    assert page.value("all(map(torch.equal, walked, model.parameters()))"), f"{steps} steps"
    assert page.value("left()") == []
    assert page.value("patched() == unpatched")


@pytest.mark.slow
@pytest.mark.alone
def test_with_a_thousand_modules_a_click_shows_its_result_within_150_ms(page: Front) -> None:
    page.run(DEEP.format(count=1000))
    page.run("hunt = %nanhunt model deep_step --paused --no-complex-half")
    page.set(page.find(_model_name="CheckboxModel", description="statistics"), value=False)
    page.click("Step")
    page.waits_for("start of step 1")
    page.settle()
    latencies = []
    for number in range(1, 10, 2):
        page.run("began = time.perf_counter(); hunt.step(examine=False)")
        own = page.value("time.perf_counter() - began")
        page.waits_for(f"start of step {number + 1}")
        page.settle()
        page.click("Step")
        latencies.append(page.waits_for(f"start of step {number + 2}") - own)
        page.settle()
    page.click("Into")
    page.waits_for("Paused in step")
    page.settle()
    inside = []
    for _ in range(7):
        before = page.status
        started = time.monotonic()
        page.click("Into")
        page.until(lambda before=before: page.status != before, 10, "the next place")  # type: ignore[misc]
        inside.append(time.monotonic() - started)
        page.settle()
    page.click("Stop")
    page.waits_for("Stopped")
    # Of several the second best: what is measured is the panel, not what else the machine does.
    assert sorted(inside)[1] < 0.15, inside
    assert sorted(latencies)[1] < 0.15, latencies


@pytest.mark.slow
def test_traffic_stays_below_ten_updates_a_second_and_64_kb_each(page: Front) -> None:
    page.run(DEEP.format(count=10_000))
    page.run("hunt = %nanhunt model deep_step --paused --no-complex-half --steps 2", 120)
    page.traffic.clear()
    page.click("Run")
    page.waits_for("start of step 2", 200)
    page.click("Into")
    page.waits_for("Paused in step 2", 60)
    for _ in range(30):
        page.click("Over")
        page.read(0.05)
    page.set(page.find(_model_name="TextModel", placeholder="search modules"), value="99")
    older = maps(page)
    page.set(page.find(_model_name="DropdownModel", description="show"), index=6)
    page.until(lambda: maps(page) - older, 60, "the map of all modules")
    page.read(2)  # what Stop sends at once has a second of its own
    page.click("Stop")
    page.waits_for("Stopped")
    moments = [moment for moment, _ in page.traffic]
    busiest = max(sum(0 <= later - moment < 1 for later in moments) for moment in moments)
    assert busiest <= 10, busiest
    assert max(size for _, size in page.traffic) < 64_000
    page.run("%unload_ext nanhunt")
