"""Finds a Chromium for the browser tests, installs Debian's where it may, else says what to do."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "chromium")


def find() -> str | None:
    """Path of a Chromium that starts, or None; Ubuntu has one that only tells of its snap."""
    for name in NAMES:
        path = shutil.which(name)
        if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return None


def install() -> None:
    """Installs Debian's package; what apt-get has to say about a failure is shown."""
    print("The browser tests need Chromium; installing Debian's.", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (("apt-get", "update", "--quiet"), INSTALL):
        done = subprocess.run(command, env=quiet, capture_output=True, text=True)
        if done.returncode != 0:
            print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
            return


def main() -> int:
    """Prints the path; returns 1, with the line to type, when there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="as root, install what is missing")
    options = parser.parse_args()
    path = find()
    if path is None and options.install and os.geteuid() == 0 and shutil.which("apt-get"):
        install()
        path = find()
    if path is None:
        print(
            "The browser tests need Chromium, and there is none on PATH "
            f"({', '.join(NAMES)}). Install it and run again, on Debian with:\n"
            f"    sudo apt-get install chromium",
            file=sys.stderr,
        )
        return 1
    print(f"browser tests use {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
