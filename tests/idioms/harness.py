"""Runs one program of the grid through one way in, and says in a word how that went.

python -m tests.idioms.harness NAME WAY            healthy: "ok", or what is wrong
python -m tests.idioms.harness NAME WAY fault      "right", "loop", "honest", or "wrong: ..."
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import nanhunt
from nanhunt.cli import EXIT_FOUND
from nanhunt.cli import main as command
from tests.idioms.ending import final
from tests.idioms.program import MARK, Program, Space, paths
from tests.leftovers import installed, threads_left

MANY = 1000  # more steps than any program has
KEEP = f"\n__import__('sys').modules['{__spec__.name}'].keep(globals())\n"
KEPT: list[dict[str, Any]] = []  # what the scripts that were run by `nanhunt run` have ended with


def keep(space: Space) -> None:
    """Called at the end of a script."""
    KEPT.append(final(space))


class Wrong(Exception):
    """What a way has said or done that it must not, in one line."""


def bare(program: Program) -> tuple[dict[str, Any], int]:
    """What a run without nanhunt ends with, and how many passes its loop has."""
    space = program.set_up()
    passes = program.loop(space)
    return final(space), passes


# -- the six ways in ----------------------------------------------------------------------------

Run = tuple[Any, Any]  # a report, and what the program has ended with
SEED = 0


def _hunt(program: Program, passes: int) -> Run:
    space = program.set_up()
    step, items = program.step_fn(space), program.items(space)
    options = program.options(space)
    report = nanhunt.hunt(model_of(space), step, data=items, steps=MANY, progress=False, **options)
    if report.finding is not None:
        return report, None
    if report.steps_run != passes:
        raise Wrong(f"steps: {report.steps_run} of {passes}")
    program.after(space)
    return report, final(space)


def _stepped(program: Program, passes: int) -> Run:
    """A step, one from inside, one that is undone and run again, and so on."""
    space = program.set_up()
    step, items = program.step_fn(space), program.items(space)
    options = program.options(space)
    with nanhunt.Hunt(model_of(space), step, data=items, progress=False, **options) as hunt:
        for number in range(passes):
            if number != 1:
                hunt.step()
            elif hunt.into() is not None:
                hunt.over()
                hunt.resume()
            if number == 2:
                hunt.back()
                hunt.step()
        report = hunt.report
    program.after(space)
    return report, final(space)


def _cell(program: Program, passes: int) -> Run:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    before, loop = program.parts()

    def run(cell: str) -> Any:
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            result = shell.run_cell(cell, store_history=True)
        result.raise_error()
        return result.result

    run("%load_ext nanhunt")
    run(before)
    name = "models" if "models" in shell.user_ns else "model"
    words = [f"--{key} {key}" for key in program.options(shell.user_ns)]
    report = run(f"%%nanhunt {name} --no-progress {' '.join(words)}\n{loop}")
    own = {k: v for k, v in shell.user_ns.items() if k not in shell.user_ns_hidden}
    run("%unload_ext nanhunt")
    return report, final(own)


def _run(program: Program, passes: int) -> Run:
    program.script.write_text(program.text + KEEP, encoding="utf-8")
    place = program.script.with_suffix(".nanhunt.json")
    words = ["run", "--no-bundle", "--report", str(place), str(program.script)]
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        code = command(words)
    if code == EXIT_FOUND:
        return nanhunt.load_report(place), None
    if code or "nothing went bad" not in heard.getvalue():
        kind = "crash: exit code 1" if code else "unwatched"
        raise Wrong(f"{kind}: {' '.join(heard.getvalue().split())[-300:]}")
    return nanhunt.Report(passes), KEPT.pop()


def _guard(program: Program, passes: int) -> Run:
    space = program.set_up()
    with nanhunt.guard(model_of(space), bundle=None) as guard:
        program.loop(space)
    if guard.report.failures or guard.report.stopped or not guard.report.steps:
        raise Wrong(f"guard: {' '.join(str(guard.report).split())[:300]}")
    return nanhunt.Report(guard.report.steps), final(space)


def _preflight(program: Program, passes: int) -> Run:
    """The step is undone: what is run after it ends as if it had not been."""
    space = program.set_up()
    step, items = program.step_fn(space), program.items(space)
    options = program.options(space)
    facts = nanhunt.preflight(model_of(space), step, data=items, **options).warnings
    told = [f for f in facts if f.kind not in program.said["allows"]]
    if told:
        raise Wrong(f"finding: {'; '.join(f'{f.kind}: {f.text}' for f in told)[:300]}")
    program.loop(space)
    return nanhunt.Report(1), final(space)


RUNS: dict[str, Callable[[Program, int], Run]] = {
    "hunt": _hunt,
    "stepped": _stepped,
    "cell": _cell,
    "run": _run,
    "guard": _guard,
    "preflight": _preflight,
}


def model_of(space: Space) -> Any:
    """What the user would name."""
    return space["models"] if "models" in space else space["model"]


# -- the verdicts -------------------------------------------------------------------------------


def check(name: str, way: str) -> str:
    """Runs a healthy program: `"ok"`, or what is wrong in a line, after a word for its kind."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        program = Program(paths()[name], Path(folder))
        expected, passes = bare(program)
        usual = {(w.category, str(w.message)) for w in heard}
        heard.clear()
        before, threads = installed(), set(threading.enumerate())
        try:
            report, ended = RUNS[way](program, passes)
        except Wrong as error:
            return str(error)
        after = installed()
        found = [f for f in report.findings if f.cause not in program.said["allows"]]
        if found:
            return f"finding: {_told(found[0])}"
        differs = [k for k in expected if ended.get(k) != expected[k]]
        if differs:
            return f"bits: {', '.join(differs[:6])} ({len(differs)} of {len(expected)})"
        left = [k for k in before | after if before.get(k) != after.get(k)]
        left += threads_left(threads)
        if left:
            return f"left behind: {', '.join(left)}"
        new = [w for w in heard if (w.category, str(w.message)) not in usual]
        if new:
            told = " ".join(str(new[0].message).split())[:300]
            return f"warns: {new[0].category.__name__}: {told}"
    return "ok"


def judge(name: str, way: str) -> str:
    """Runs a program with its fault: `right`, `loop` (right but coarse), `honest` or `wrong: ...`.

    `loop` is said of the loop's own code as a whole, where that is where the fault is.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        program = Program(paths()[name], Path(folder), faulty=True)
        try:
            report, _ = RUNS[way](program, MANY)
        except Wrong as error:
            return f"wrong: {error}"
        except Exception as error:  # a step's own comes with what had been found by then
            kept = nanhunt.last_report()
            files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
            own = any(file == str(program.script) or "ipython-input" in file for file in files)
            if not own or kept is None or kept.finding is None:
                raise
            report = kept
        finding = report.finding
        if finding is None:
            return f"wrong: nothing found in {report.steps_run} steps"
        if _at_place(finding, program):
            return "right"
        if report.replay.startswith("not_reproduced"):
            return "honest"
        if (
            not program.fault_in_model
            and finding.source is None
            and "loop's own code" in finding.explanation
        ):
            return "loop"
        return f"wrong: {_told(finding)}"


def _at_place(finding: Any, program: Program) -> bool:
    for place in program.said["place"]:
        key, _, value = place.partition("=")
        if str(getattr(finding, key)) == value:
            return True
    return finding.source is not None and finding.source.code.endswith(MARK)


def _told(finding: Any) -> str:
    where = f"{finding.phase}, module {finding.module!r}, {finding.op}, {finding.tensor}"
    line = finding.source.code if finding.source else "no line"
    told = f"{finding.kind} in {where}, {line!r}, {finding.cause}: {finding.explanation}"
    return told[:400]


def main() -> int:
    """Judges one program; anything that is raised on the way is a crash."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("way", choices=RUNS)
    parser.add_argument("fault", nargs="?", choices=["fault"], help="put the fault in")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        verdict = (judge if options.fault else check)(options.name, options.way)
    except Exception as error:  # noqa: BLE001  whatever it is, it is what is reported
        traceback.print_exc()
        own = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(own.filename).name}:{own.lineno}"
        verdict = f"crash: {type(error).__name__} at {where}: {' '.join(str(error).split())[:300]}"
    print(verdict)
    return 0


if __name__ == "__main__":
    sys.modules[__spec__.name] = sys.modules["__main__"]  # the one that scripts find
    sys.exit(main())
