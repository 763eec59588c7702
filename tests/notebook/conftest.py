"""The kernels that tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.notebook.kernels import Kernel
from tests.notebook.panels import SETUP, Front, front


@pytest.fixture(scope="session")
def fronts() -> Iterator[Callable[[Kernel], Front]]:
    """Gives the front end to a kernel, which is started when it is first asked for."""
    started: dict[Kernel, Front] = {}
    with ExitStack() as ends:

        def of(kernel: Kernel) -> Front:
            if kernel not in started:
                made = ends.enter_context(front(kernel.python(), kernel.subshell))
                assert made.value("__import__('ipykernel').__version__") == kernel.version
                if kernel.mended:
                    made.run("from ipykernel.subshell_manager import SubshellManager")
                    line = "SubshellManager._send_on_shell_channel.__module__"
                    assert made.value(line) == "mended_ipykernel"
                made.run(SETUP)
                started[kernel] = made
            return started[kernel]

        yield of
