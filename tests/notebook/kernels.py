"""The kernels that the panel is tried in, each with an environment that is made once.

ipykernel 7.0 to 7.3 lose a request now and then, with plain cells too, and lie idle for good:
their replies bypass the stream that reads requests from the same socket, and may take its
wake-up along (https://github.com/ipython/ipykernel/pull/1529). On two busy cores 12 of 24
kernels were lost so within 150 cells of `x = 1`, and none of 24 with the line that 7.4 changed.
So that these tests speak of the panel, 7.3 is given that line.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "kernels"
MENDED = """
from ipykernel.kernelapp import IPKernelApp
from ipykernel.subshell_manager import SubshellManager

def send(self, message):
    IPKernelApp.instance().kernel.shell_stream.send_multipart(message)

SubshellManager._send_on_shell_channel = send
"""


@dataclass(frozen=True)
class Kernel:
    """A version of ipykernel, and how a page talks to it.

    Attributes:
        version: of ipykernel.
        subshell: messages of widgets are handled on a thread of their own; JupyterLab asks for
            one where the kernel can, so for 7.0 to 7.3.
        mended: with the line of 7.4 that the module's docstring is about.
    """

    version: str
    subshell: bool = False
    mended: bool = False

    def python(self) -> str:
        """The Python of an environment with this ipykernel, and everything else from here."""
        if self == NEWEST:
            return sys.executable
        paths = sysconfig.get_paths()
        needed = f"{ROOT}\n{paths['purelib']}\n{paths['platlib']}\n"
        key = hashlib.sha256(f"{self}{MENDED}{sys.version}{needed}".encode()).hexdigest()[:12]
        folder = KEPT / f"{self.version}-{key}"
        KEPT.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # another worker may want the same one
            if not (folder / "complete").exists():
                self._make(folder, needed)
        return str(folder / "bin" / "python")

    def _make(self, folder: Path, needed: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # the rest of an attempt that was cut off
        venv.create(folder, with_pip=False)
        (site,) = (folder / "lib").glob("python*/site-packages")
        # An index may fail for a moment, hence the many retries of pip itself.
        command = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--retries", "10"]
        command += ["--target", str(site), f"ipykernel=={self.version}"]
        subprocess.run(command, check=True)
        (site / "needed.pth").write_text(needed)
        if self.mended:
            (site / "mended_ipykernel.py").write_text(MENDED)
            (site / "then_mended.pth").write_text("import mended_ipykernel\n")
        (folder / "complete").touch()


NEWEST = Kernel(version_of("ipykernel"))
OLDER = [Kernel("6.31.0"), Kernel("7.3.0", subshell=True, mended=True)]


def in_kernels(metafunc: pytest.Metafunc) -> None:
    """Runs a module's tests in the newest kernel, those marked `every_kernel` in all of them.

    It is the module's `pytest_generate_tests`. NANHUNT_KERNELS=all runs all tests in all of them.
    """
    everywhere = os.environ.get("NANHUNT_KERNELS") == "all"
    marked = metafunc.definition.get_closest_marker("every_kernel") is not None
    kernels = [NEWEST, *OLDER] if everywhere or marked else [NEWEST]
    names = [f"{kernel.version}{'-subshell' * kernel.subshell}" for kernel in kernels]
    metafunc.parametrize("page", kernels, indirect=True, scope="module", ids=names)
