"""The magics in a real kernel: outputs, interrupt, progress."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from nanhunt.records.report import Report

SETUP = """
%load_ext nanhunt
import time, torch
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def step():
    optimizer.zero_grad()
    loss = (model(torch.ones(4, 2)) * 0).log().sum()
    loss.backward()
    optimizer.step()
def slow():
    print("slow")
    optimizer.zero_grad()
    model(torch.ones(4, 2)).pow(2).sum().backward()
    optimizer.step()
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    manager, client = start_new_kernel(kernel_name="python3")
    outputs(client, client.execute(SETUP))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def outputs(client: BlockingKernelClient, request: str, limit: float = 60) -> list[dict[str, Any]]:
    """All outputs of a request, until the kernel is idle again."""
    found, end = [], time.monotonic() + limit
    while time.monotonic() < end:
        try:
            message = client.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        if message["parent_header"].get("msg_id") != request:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "status" and content["execution_state"] == "idle":
            return found
        found.append({"type": kind, **content})
    raise TimeoutError("the kernel did not become idle")


def test_the_report_is_the_cells_result_in_every_form(kernel: Any) -> None:
    _, client = kernel
    found = outputs(client, client.execute("%nanhunt model step"))
    (result,) = [o for o in found if o["type"] == "execute_result"]
    assert {"text/plain", "text/html", Report.MIME_TYPE} <= set(result["data"])
    report = result["data"][Report.MIME_TYPE]
    assert report["findings"][0]["op"] == "aten.log.default"
    assert report["findings"][0]["source"]["cell"] == 1
    assert not [o for o in found if o["type"] == "error"]


def test_an_interrupt_gives_a_partial_report_and_the_kernel_lives(kernel: Any) -> None:
    manager, client = kernel
    request = client.execute("%nanhunt model slow --steps 2000")
    begun = 0
    while begun < 6:
        message = client.get_iopub_msg(timeout=60)
        if message["msg_type"] == "stream":
            begun += message["content"]["text"].count("slow")
    manager.interrupt_kernel()
    found = outputs(client, request)
    (result,) = [o for o in found if o["type"] == "execute_result"]
    assert result["data"][Report.MIME_TYPE]["interrupted"]
    assert result["data"][Report.MIME_TYPE]["steps_run"] > 3
    alive = outputs(client, client.execute("print(1 + 1)"))
    assert any(o.get("text") == "2\n" for o in alive)


def test_progress_is_shown_at_most_ten_times_a_second_and_cleared(kernel: Any) -> None:
    _, client = kernel
    started = time.monotonic()
    found = outputs(client, client.execute("_ = %nanhunt model slow --steps 30 --no-panel"))
    seconds = time.monotonic() - started
    updates = [o for o in found if o["type"] == "update_display_data"]
    assert 1 <= len(updates) <= 10 * seconds + 2
    assert updates[-1]["data"] == {"text/plain": "", "text/html": ""}


def test_completion_comes_through_the_kernel(kernel: Any) -> None:
    _, client = kernel
    reply = client.complete("%nanhunt mo", reply=True, timeout=30)
    assert "model" in reply["content"]["matches"]
