"""The command `nanhunt`: what needs no notebook."""

from __future__ import annotations

import argparse
import difflib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import nanhunt
from nanhunt.errors import NanhuntError, ReportFormatError, UsageError

if TYPE_CHECKING:
    from nanhunt import Report

EXIT_UNHEALTHY = 1  # a checkpoint is bad, and no healthy copy of it was written
EXIT_FOUND = 3  # a script that was watched has gone bad
EXIT_BAD_INPUT = 2  # as argparse itself exits for arguments it cannot use


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code.

    0; 1 when `doctor` finds something bad, or a script that was run raised an exception; 2 when
    input cannot be used; 3 when the training of a script that was run went bad.
    """
    options = _parser().parse_args(arguments)
    if options.command == "run":
        return _run(options)  # what a script raises or prints is its own
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode gets a "?"
    try:
        return int(options.run(options))
    except NanhuntError as error:
        print(f"nanhunt: {error}", file=sys.stderr)
    except OSError as error:
        print(f"nanhunt: {_line(error)}", file=sys.stderr)
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
    run = commands.add_parser("run", help="run a training script, watched")
    run.add_argument("script", help="a Python file; it is run as it is")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help="what the script is given")
    run.add_argument("--report", metavar="FILE", help="instead of SCRIPT.nanhunt.json")
    run.add_argument("--bundle", metavar="FOLDER", default="nanhunt_bundles")
    run.add_argument("--no-bundle", action="store_true", help="keep no state of the failing step")
    run.set_defaults(run=_run)
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
    from nanhunt.checkpoints.judge.against_model import load_model

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


def _run(options: argparse.Namespace) -> int:
    """Runs a script under watch; what it prints, raises and exits with stays its own."""
    from nanhunt.core.guard.script import ScriptRun, script_frames

    if not Path(options.script).is_file():
        print(f"nanhunt: {options.script}: there is no such script", file=sys.stderr)
        return EXIT_BAD_INPUT
    watch = ScriptRun(None if options.no_bundle else Path(options.bundle))
    ended: SystemExit | None = None
    code = 0
    try:
        watch.run(options.script, options.arguments)
    except SystemExit as error:
        ended = error
    except Exception as error:  # noqa: BLE001  told as Python would tell it
        own = error.with_traceback(script_frames(error.__traceback__, options.script))
        sys.excepthook(type(own), own, own.__traceback__)
        code = 1
    report = watch.report
    if report is not None and report.finding is not None:
        path = report.save(options.report or Path(options.script).stem)
        _say(f"{report}\n\nReport: {path}\nBundle: {watch.bundle or watch.trouble or 'none'}")
        return EXIT_FOUND
    if watch.aside:
        _say("nanhunt: the script has a guard or a hunt of its own, so it was left to that")
    elif report is None:
        _say("nanhunt: nothing was trained that could be watched")
    else:
        _say(_told_of_nothing_bad(report))
    if ended is not None:
        raise ended
    return code


def _told_of_nothing_bad(report: Report) -> str:
    """One line, where it is all that there is to say; else the report."""
    from nanhunt.render import wording

    steps = wording.steps(report.steps_run)
    if report.status == "healthy":
        return f"nanhunt: {steps}, nothing went bad"
    if report.status == "interrupted":
        ended = "was interrupted" if report.interrupted else "raised an exception"
        return f"nanhunt: the script {ended} after {steps}; nothing bad was seen until then"
    if report.status == "nothing_watched":
        return "nanhunt: no step of a training was run to its end"
    return str(report)


def _say(text: str) -> None:
    """Writes to stderr, also where that has no Unicode."""
    encoding = getattr(sys.stderr, "encoding", None) or "ascii"
    print(text.encode(encoding, "replace").decode(encoding), file=sys.stderr)


def _line(error: Exception) -> str:
    """One line; names from a stranger's file must not steer the terminal."""
    from nanhunt.render import wording

    told = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        told = f"{error.filename}: {error.strerror}"
    return wording.visible(" ".join(told.split()), limit=2000)


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
