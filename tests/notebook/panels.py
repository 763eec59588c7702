"""A front end without a browser: widgets of a real kernel, clicked through messages."""

from __future__ import annotations

import os
import queue
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

SETUP = """
%load_ext nanhunt
import faulthandler, signal, sys, threading, time, torch
# Where a wait is in vain, what the kernel's threads do is printed beside the test's failure.
faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, all_threads=True)
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
count, pause, fails_at = [0], [0.0], [10 ** 9]
def step_fn():
    count[0] += 1
    time.sleep(pause[0])
    optimizer.zero_grad()
    loss = model(torch.randn(16, 4)).pow(2).mean()
    if count[0] == fails_at[0]:
        loss = loss * (loss - loss).log()
    print("printed by step", count[0])
    loss.backward()
    optimizer.step()
    return loss
def patched():
    streams = [type(stream).__name__ for stream in (sys.stdout, sys.stderr)]
    return nn.Module.__call__, torch.autograd.backward, torch.amp.GradScaler.step, streams
unpatched = patched()
def ours():
    return [t for t in threading.enumerate() if t.name.startswith("nanhunt")]
def threads():
    return sorted(t.name for t in ours())
def left():
    for thread in ours():
        thread.join(1)  # its last act may be to say that it ends
    return threads()
"""


class Front:
    """Talks to one kernel and keeps the state of its widgets, as a notebook page does.

    Args:
        manager: of a started kernel.
        client: with channels open.
        subshell: send widget messages to a thread of their own, as JupyterLab 4.4 and later does
            where the kernel can.
    """

    def __init__(
        self, manager: KernelManager, client: BlockingKernelClient, subshell: bool = False
    ) -> None:
        self.manager, self.client = manager, client
        self.widgets: dict[str, dict[str, Any]] = {}
        self.outputs: dict[str, list[dict[str, Any]]] = {}
        self.displays: dict[str, Any] = {}
        self.traffic: list[tuple[float, int]] = []
        self.hunts: dict[str, dict[str, Any]] = {}
        self.lost = False
        self._idle: set[str] = set()
        self._subshell = self._make_subshell() if subshell else None

    # -- cells ----------------------------------------------------------------------------------

    def start(self, code: str) -> str:
        """Sends a cell; returns its request."""
        assert not self.lost, "a cell before this one never ended"
        return str(self.client.execute(code))

    def run(self, code: str, limit: float = 60) -> list[dict[str, Any]]:
        """Runs a cell to its end; returns its outputs."""
        request = self.start(code)
        try:
            self.until(lambda: request in self._idle, limit, f"the end of {code!r}")
        except TimeoutError:
            self.lost = True
            raise
        return self.outputs.get(request, [])

    def value(self, expression: str) -> Any:
        """The value of an expression in the kernel, by way of its repr."""
        outputs = self.run(expression)
        errors = [o for o in outputs if o["type"] == "error"]
        assert not errors, errors
        (result,) = [o for o in outputs if o["type"] == "execute_result"]
        return eval(result["data"]["text/plain"])

    def text(self, request: str) -> str:
        """What a cell printed."""
        found = self.outputs.get(request, [])
        return "".join(o["text"] for o in found if o["type"] == "stream")

    # -- widgets --------------------------------------------------------------------------------

    def find(self, **wanted: Any) -> str:
        """The newest widget whose state has these entries."""
        for key, state in reversed(self.widgets.items()):
            if all(state.get(name) == value for name, value in wanted.items()):
                return key
        raise LookupError(f"no widget has {wanted}")

    def click(self, label: str) -> None:
        """Clicks the button with this label."""
        key = self.find(_model_name="ButtonModel", description=label)
        self._send(key, {"method": "custom", "content": {"event": "click"}})

    def set(self, key: str, **state: Any) -> None:
        """Changes a widget's state as a person does."""
        self.widgets[key].update(state)
        self._send(key, {"method": "update", "state": state, "buffer_paths": []})

    # -- live control ---------------------------------------------------------------------------

    @property
    def hunt(self) -> dict[str, Any]:
        """What the comm of the live hunt told last; empty when there is none."""
        assert len(self.hunts) <= 1, self.hunts
        return next(iter(self.hunts.values()), {})

    def order(self, **data: Any) -> None:
        """Sends something through the comm of the live hunt."""
        (key,) = self.hunts
        self._send(key, data)

    def comms(self, target: str) -> list[str]:
        """The comms of this target that the kernel tells of, as to a page that came late."""
        request = self.client.comm_info(target)
        while True:
            reply = self.client.get_shell_msg(timeout=20)
            if reply["parent_header"].get("msg_id") == request:
                return list(reply["content"]["comms"])

    def turn_away(self) -> None:
        """Closes the comm of the live hunt, as a page does that does not know its target."""
        (key,) = self.hunts
        session = self.client.session
        message = session.msg("comm_close", {"comm_id": key, "data": {}})
        self.client.shell_channel.send(message)

    @property
    def status(self) -> str:
        """The panel's text above its buttons."""
        found = [s["value"] for s in self.widgets.values() if 'role="status"' in _html(s)]
        return unescape(re.sub(r"<[^>]*>", "\n", found[-1])).strip() if found else ""

    def waits_for(self, told: str, limit: float = 30) -> float:
        """Waits until the status says something; returns the seconds."""
        started = time.monotonic()
        try:
            self.until(lambda: told in self.status, limit, repr(told))
        except TimeoutError as error:
            raise TimeoutError(f"{error}; the panel says {self.status!r}") from None
        return time.monotonic() - started

    @property
    def log(self) -> str:
        """What the steps printed, as the panel shows it."""
        found = [s["value"] for s in self.widgets.values() if "nh-log" in _html(s)]
        return unescape(re.sub(r"<[^>]*>", "", found[-1])) if found else ""

    # -- messages -------------------------------------------------------------------------------

    def until(self, true: Callable[[], bool], limit: float, what: str) -> None:
        """Reads messages until something is true."""
        end = time.monotonic() + limit
        while not true():
            if time.monotonic() > end:
                os.kill(self.manager.provisioner.pid, signal.SIGUSR1)  # see SETUP
                raise TimeoutError(f"waited {limit} s for {what}")
            self.read(0.01)

    def read(self, seconds: float) -> None:
        """Takes in what the kernel says for so long."""
        end = time.monotonic() + seconds
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return
            self._take(message)

    def settle(self, calm: float = 0.6, limit: float = 10) -> None:
        """Reads messages until none has come for a while, which the panel's ten a second are not.

        Raises:
            TimeoutError: the kernel never falls silent.
        """
        end = time.monotonic() + limit
        while self.client.iopub_channel.socket.poll(calm * 1000):
            if time.monotonic() > end:
                raise TimeoutError(f"the kernel was not silent for {calm} s within {limit} s")
            self.read(0)

    def _take(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        parent = message["parent_header"].get("msg_id", "")
        if kind == "comm_open" and content["target_name"] == "jupyter.widget":
            self.widgets[content["comm_id"]] = dict(content["data"]["state"])
        elif kind == "comm_msg" and content["comm_id"] in self.widgets:
            state = content["data"].get("state", {})
            self.widgets[content["comm_id"]].update(state)
            if content["data"].get("method") == "update":
                sent = message["header"]["date"].timestamp()
                self.traffic.append((sent, len(repr(state))))
        elif kind == "comm_open" and content["target_name"] == "nanhunt.hunt":
            self.hunts[content["comm_id"]] = {}
        elif kind == "comm_msg" and content["comm_id"] in self.hunts:
            self.hunts[content["comm_id"]] = content["data"]["hunt"]
            sent = message["header"]["date"].timestamp()
            self.traffic.append((sent, len(repr(content["data"]))))
        elif kind == "comm_close":
            self.hunts.pop(content["comm_id"], None)
            self.widgets.pop(content["comm_id"], None)
        elif kind == "status" and content["execution_state"] == "idle":
            self._idle.add(parent)
        elif kind == "update_display_data":
            self.displays[content["transient"]["display_id"]] = content["data"]
        elif kind in ("stream", "display_data", "execute_result", "error"):
            self.outputs.setdefault(parent, []).append({"type": kind, **content})

    def _send(self, key: str, data: dict[str, Any]) -> None:
        session = self.client.session
        message = session.msg("comm_msg", {"comm_id": key, "data": data})
        if self._subshell is not None:
            message["header"]["subshell_id"] = self._subshell
        self.client.shell_channel.send(message)

    def _make_subshell(self) -> str:
        """Asks until the kernel answers: one that has just begun may lose a request.

        ipykernel 7 reads its control channel before it has the lock for it (`dispatch_control`
        ends in a TraitError about `_control_lock` then).
        """
        for _ in range(10):
            request = self.client.session.msg("create_subshell_request")
            self.client.control_channel.send(request)
            while self.client.control_channel.socket.poll(3_000):
                reply = self.client.get_control_msg(timeout=0)
                if reply["parent_header"].get("msg_id") == request["header"]["msg_id"]:
                    return str(reply["content"]["subshell_id"])
        raise TimeoutError("the kernel made no subshell")


def _html(state: dict[str, Any]) -> str:
    value = state.get("value")
    return value if isinstance(value, str) else ""


@contextmanager
def front(python: str, subshell: bool = False) -> Iterator[Front]:
    """A kernel of this Python, and the front end to it."""
    manager = KernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = python
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    try:
        yield Front(manager, client, subshell)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
