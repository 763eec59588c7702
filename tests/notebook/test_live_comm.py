"""The comm of a live hunt in real kernels, without a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nanhunt.panel.remote import TARGET
from tests.notebook.kernels import in_kernels
from tests.notebook.panels import Front
from tests.notebook.test_panel_in_kernels import left_as_found, page

__all__ = ["left_as_found", "page"]
pytest_generate_tests = in_kernels
PAUSED = "hunt = %nanhunt model step_fn --paused --steps 5"


@pytest.fixture
def hunt(page: Front) -> Iterator[Front]:
    """A page on which a hunt stands before its first step."""
    page.run(PAUSED)
    says(page, "start of step 0")
    yield page
    page.run("hunt.close()\n%unload_ext nanhunt")
    page.until(lambda: not page.hunts, 10, "the comm's end")
    assert page.comms(TARGET) == []
    page.run("%load_ext nanhunt")


def says(page: Front, told: str) -> None:
    page.until(lambda: told in page.hunt.get("headline", ""), 30, f"{told!r}: {page.hunt}")


@pytest.mark.every_kernel
def test_every_command_does_what_its_button_does(hunt: Front) -> None:
    for command, told in (
        ("step", "start of step 1"),
        ("into", "Paused in step 1, before the model"),
        ("into", "before 0 (Linear)"),
        ("over", "after 0 (Linear)"),
        ("out", "after the model"),
        ("resume", "start of step 2"),
        ("back", "start of step 1"),
        ("run", "start of step 6"),
        ("hunt", "start of step 11"),
    ):
        assert command in hunt.hunt["commands"]
        hunt.order(command=command)
        says(hunt, told)
    hunt.order(command="replay")
    hunt.until(lambda: "replayed" in hunt.hunt["notice"], 20, "the notice")
    hunt.order(command="stop")
    hunt.until(lambda: not hunt.hunts, 10, "the comm's end")
    hunt.waits_for("Stopped")
    assert hunt.value("left()") == []


@pytest.mark.every_kernel
def test_a_running_hunt_is_paused_and_what_is_possible_is_told(hunt: Front) -> None:
    hunt.run("pause[0] = 1.0")
    hunt.order(command="run")
    says(hunt, "Running: run")
    assert {"pause", "stop"} <= set(hunt.hunt["commands"])
    assert not {"step", "run", "over"} & set(hunt.hunt["commands"])
    hunt.order(command="pause")
    says(hunt, "start of step")
    assert hunt.value("count[0]") < 5


def test_unknown_commands_are_refused_and_said_to_be_unknown(hunt: Front) -> None:
    hunt.order(command="close")
    hunt.until(lambda: "no command 'close'" in hunt.hunt["notice"], 10, "the refusal")
    hunt.order(command=["step"])
    hunt.order(anything=1)
    hunt.order(command="step")
    says(hunt, "start of step 1")
    assert hunt.value("count[0]") == 1
    assert hunt.hunt["notice"] == ""


def test_a_page_that_comes_late_finds_the_comm_and_is_told_the_state(hunt: Front) -> None:
    (key,) = hunt.comms(TARGET)
    hunt.hunts = {key: {}}
    hunt.order(ask="state")
    says(hunt, "start of step 0")


def test_a_page_that_does_not_know_the_comm_does_not_take_it_from_others(hunt: Front) -> None:
    hunt.turn_away()
    hunt.run("pass")  # the kernel has heard of it
    hunt.order(command="step")
    says(hunt, "start of step 1")
    (key,) = hunt.comms(TARGET)
    assert key in hunt.hunts


def test_another_panel_has_the_only_comm(hunt: Front) -> None:
    hunt.run(PAUSED)
    says(hunt, "start of step 0")
    assert hunt.comms(TARGET) == list(hunt.hunts)


def test_a_fast_run_tells_its_states_among_nine_messages_a_second(hunt: Front) -> None:
    hunt.read(1.0)
    hunt.traffic.clear()
    hunt.run("hunt.statistics = False\npause[0] = 0.002")
    for _ in range(20):
        hunt.order(command="run")
        hunt.read(0.1)
    hunt.order(command="pause")
    hunt.read(1.5)
    times = [sent for sent, _ in hunt.traffic]
    assert hunt.hunt["step"] > 5
    assert all(late - early > 0.95 for early, late in zip(times, times[9:], strict=False))
