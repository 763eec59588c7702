"""The command `nanhunt`: what needs no notebook."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

import nanhunt
from nanhunt.errors import NanhuntError, ReportFormatError

EXIT_BAD_INPUT = 2  # as argparse itself exits for arguments it cannot use


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, or 2 when its input cannot be used."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode gets a "?"
    try:
        return int(options.run(options))
    except NanhuntError as error:
        print(f"nanhunt: {error}", file=sys.stderr)
    except OSError as error:
        print(f"nanhunt: {error.filename}: {error.strerror}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    """Every command is a subparser whose `run` takes the parsed arguments."""
    parser = argparse.ArgumentParser(
        prog="nanhunt", description="Find the first value that broke a PyTorch training run."
    )
    parser.add_argument("--version", action="version", version=f"nanhunt {nanhunt.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    report = commands.add_parser("report", help="print a saved report")
    report.add_argument("file", help="a *.nanhunt.json file, as written by Report.save")
    report.add_argument("--html", metavar="OUT", help="also write it as a standalone page")
    report.set_defaults(run=_report)
    return parser


def _report(options: argparse.Namespace) -> int:
    try:
        report = nanhunt.load_report(options.file)
    except ReportFormatError as error:
        raise ReportFormatError(f"{options.file}: {error}") from error
    if options.html:
        report.to_html(options.html)
    print(report)
    return 0
