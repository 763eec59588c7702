"""The command `nanhunt`: what needs no notebook."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import nanhunt
from nanhunt.errors import NanhuntError

EXIT_BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, or 2 when its input cannot be used."""
    parser = argparse.ArgumentParser(prog="nanhunt", description=nanhunt.__doc__)
    parser.add_argument("--version", action="version", version=nanhunt.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="print a saved report")
    report.add_argument("file", help="a *.nanhunt.json file")
    report.add_argument("--html", metavar="OUT", help="also write a standalone page")
    options = parser.parse_args(arguments)
    try:
        loaded = nanhunt.load_report(options.file)
        if options.html:
            loaded.to_html(options.html)
    except (NanhuntError, OSError) as error:
        print(f"nanhunt: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(loaded)
    return 0
