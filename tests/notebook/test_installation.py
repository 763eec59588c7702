"""The built wheel where there is no Node.js, as at a user's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

LIST = "import sys; from jupyterlab.labextensions import main; sys.exit(main())"


def test_the_wheel_brings_the_extension_without_nodejs(installed: Path) -> None:
    path = str(installed.parent)
    assert shutil.which("node", path=path) is None
    done = subprocess.run(
        [installed, "-c", LIST, "list"],
        env={**os.environ, "PATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    told = done.stdout + done.stderr
    (line,) = [line for line in told.splitlines() if line.split()[:1] == ["nanhunt"]]
    assert "enabled" in line
    assert "OK" in line
    folder = installed.parent.parent / "share" / "jupyter" / "labextensions" / "nanhunt"
    assert len(list(folder.glob("static/remoteEntry.*.js"))) == 1
    assert (folder / "install.json").exists()
