"""A Jupyter server of our own for the browser tests, with folders that nobody else has."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nbformat

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "build" / "screenshots"


class Server(NamedTuple):
    """A running server.

    Attributes:
        address: e.g. `"http://127.0.0.1:8123"`.
        home: the folder that it serves.
        settings: JupyterLab's folder of user settings.
    """

    address: str
    home: Path
    settings: Path

    def choose_theme(self, theme: str) -> None:
        """Chooses `"light"` or `"dark"` for pages opened from now on."""
        chosen = {"theme": f"JupyterLab {theme.capitalize()}"}
        folder = self.settings / "@jupyterlab" / "apputils-extension"
        (folder / "themes.jupyterlab-settings").write_text(json.dumps(chosen))


def write_notebook(path: Path, cells: Sequence[str]) -> None:
    """Writes a notebook of code cells that have not been run."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)


@contextmanager
def serve(
    home: Path,
    app: str = "jupyterlab",
    python: Path | str = sys.executable,
    options: Sequence[str] = (),
    **environment: str,
) -> Iterator[Server]:
    """Runs `app="jupyterlab"` or `app="notebook"` over a folder.

    Args:
        home: the folder to serve; the server's own folders are made beside it.
        app: the module of the application.
        python: the Python of the environment that it comes from.
        options: further command-line options.
        **environment: further environment variables.
    """
    own = home.parent / f"{home.name}-{app}"
    folders = {name: str(own / name) for name in ("config", "data", "runtime", "settings", "ws")}
    settings = own / "settings"
    apputils = settings / "@jupyterlab" / "apputils-extension"
    apputils.mkdir(parents=True)
    (apputils / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": folders["config"],
        "JUPYTER_DATA_DIR": folders["data"],
        "JUPYTER_RUNTIME_DIR": folders["runtime"],
        "JUPYTERLAB_SETTINGS_DIR": folders["settings"],
        "JUPYTERLAB_WORKSPACES_DIR": folders["ws"],
        **environment,
    }
    log = (own / "log").open("w+")
    server = subprocess.Popen(
        [str(python), "-m", app, "--no-browser", "--allow-root",
         f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
         f"--ServerApp.root_dir={home}", *options],
        env=variables, stdout=log, stderr=log, cwd=home,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        if not _answers(address, server):
            log.seek(0)
            raise RuntimeError(f"the server did not start:\n{log.read()[-3000:]}")
        yield Server(address, home, settings)
    finally:
        # Asked to end, it would wait for every kernel; these end by themselves without it.
        server.kill()
        server.wait(20)
        log.close()


def _answers(address: str, server: subprocess.Popen[Any]) -> bool:
    end = time.monotonic() + 90
    while time.monotonic() < end and server.poll() is None:
        if _answers_now(address):
            return True
        time.sleep(0.5)
    return False


def _answers_now(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api", timeout=2):
            return True
    except OSError:
        return False
