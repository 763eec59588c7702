"""Finds Chromium for the browser tests, installs Debian's where it may, else says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Path of a Chromium on this machine, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def main() -> int:
    """Prints the path; returns 1 with the line to type when there is no way to get one."""
    path = find()
    if path is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing Debian's chromium", flush=True)
        quiet = {"stdout": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update", "-qq"], check=False, **quiet)
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], check=False, **quiet)
        path = find()
    if path is None:
        print(
            "The browser tests need Chromium. Install it and run again:\n"
            "    sudo apt-get install -y chromium",
            file=sys.stderr,
        )
        return 1
    print(f"browser tests use {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
