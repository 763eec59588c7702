"""The command `nanhunt`: what needs no notebook."""

from __future__ import annotations

import argparse
import difflib
import io
import json
import sys
from collections.abc import Sequence

import nanhunt
from nanhunt.errors import NanhuntError, ReportFormatError, UsageError

EXIT_UNHEALTHY = 1  # a checkpoint is bad, and no healthy copy of it was written
EXIT_BAD_INPUT = 2  # as argparse itself exits for arguments it cannot use


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 1 when `doctor` finds it bad, 2 when input cannot be used."""
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
    doctor = commands.add_parser("doctor", help="examine and repair checkpoints")
    doctor.add_argument("paths", nargs="+", metavar="PATH", help="a file or a folder")
    doctor.add_argument("--fix", action="store_true", help="write NAME_FIXED.ext beside it")
    doctor.add_argument(
        "--fix-weights", action="store_true", help="also set weights that are not finite to 0"
    )
    doctor.add_argument(
        "--against", metavar="FILE.py:FUNCTION", help="run this code of yours, compare its model"
    )
    doctor.add_argument("--json", action="store_true", help="print a JSON list of diagnoses")
    doctor.set_defaults(run=_doctor)
    causes = commands.add_parser("causes", help="list the causes that a report may name")
    causes.add_argument("id", nargs="?", help="only this one, with the source of its rule")
    causes.set_defaults(run=_causes)
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


def _doctor(options: argparse.Namespace) -> int:
    """Examines every path, also after one that cannot be used; the worst decides the code."""
    from nanhunt.core.doctor.against import load_model

    model = load_model(options.against) if options.against else None
    diagnoses, codes = [], [0]
    for path in options.paths:
        try:
            fix = options.fix or options.fix_weights
            found = nanhunt.doctor(path, model, fix=fix, fix_weights=options.fix_weights)
        except (NanhuntError, OSError) as error:
            print(f"nanhunt: {_line(error)}", file=sys.stderr)
            codes.append(EXIT_BAD_INPUT)
            continue
        diagnoses.append(found)
        codes.append(0 if found.mended else EXIT_UNHEALTHY)
        if not options.json:
            print(found)
    if options.json:
        print(json.dumps([found.to_dict() for found in diagnoses], indent=1, allow_nan=False))
    return max(codes)


def _line(error: Exception) -> str:
    told = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
    return " ".join(told.split())


def _causes(options: argparse.Namespace) -> int:
    from nanhunt.core.causes import RULES

    chosen = [rule for rule in RULES if options.id in (None, rule.id)]
    if not chosen:
        close = difflib.get_close_matches(options.id, [rule.id for rule in RULES], 1)
        hint = f"; did you mean {close[0]}?" if close else "; `nanhunt causes` lists them"
        raise UsageError(f"there is no cause {options.id}{hint}")
    for rule in chosen:
        print(f"{rule.id:32} {rule.meaning}")
        if options.id:
            print(f"{'':32} Source: {rule.source}")
    return 0
