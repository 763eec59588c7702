"""The magics `%nanhunt model step_fn`, `%%nanhunt model` and `%nanhunt_doctor path`."""

from __future__ import annotations

import argparse
import difflib
import importlib
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from IPython.core.completer import CompletionContext, SimpleCompletion
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class

import nanhunt
from nanhunt import errors
from nanhunt.notebook.cell import CellLoop
from nanhunt.notebook.completer import complete, is_model, is_step
from nanhunt.notebook.progress import NotebookProgress
from nanhunt.options import PANEL, PAUSED, PREFLIGHT, options_for
from nanhunt.records.diagnosis import Diagnosis
from nanhunt.records.preflight import Preflight
from nanhunt.records.report import Report

if TYPE_CHECKING:
    from nanhunt.interactive import Hunt

_STEPS_BACK = 8  # what the panel can undo, as long as there is memory
_OF_TRIALS = ("trials", "confirm", "trial_seconds")

_HELP = """Find the first value that broke a training step.

    %nanhunt model step_fn                    hunt, at most 100 steps; returns the report
    report = %nanhunt model step_fn --steps 500
    %nanhunt model step_fn --paused           open the panel before the first step
    %nanhunt "{'g': gen, 'd': disc}" step_fn  several modules: any expression in quotes
    %%nanhunt model                           watch the loop in this cell; its steps are
    for x, y in loader:                       the optimizer's
        ...

`model` is a module, or a dict or list of modules. `step_fn` is one training step and takes
no argument (with --data, one batch). The report stands under the cell; after a failure the
training stands at the start of the failing step, and the panel can step through it by hand.

Options:
"""


class _Parser(argparse.ArgumentParser):
    """Speaks through IPython's UsageError instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}")


def _parser(cell: bool) -> _Parser:
    parser = _Parser(prog="%nanhunt", add_help=False, allow_abbrev=False)
    parser.add_argument("model")
    if not cell:
        parser.add_argument("step_fn")
    for option in options_for(cell):
        if option.kind == "flag":
            action = "store_false" if option.default else "store_true"
            parser.add_argument(
                option.flag, dest=option.name, action=action, default=option.default
            )
        else:
            kind = int if option.kind == "int" else str
            parser.add_argument(option.flag, dest=option.name, type=kind, default=option.default)
    return parser


def help_text() -> str:
    """The magic's help, with every option from the one table."""
    lines = []
    for option in options_for(cell=False):
        value = {"int": " N", "object": " NAME", "flag": ""}[option.kind]
        meaning = f"do not {option.help}" if option.flag.startswith("--no-") else option.help
        lines.append(f"    {option.flag + value:22} {meaning}")
    return _HELP + "\n".join(lines)


@magics_class
class NanhuntMagics(Magics):
    """Registered by `%load_ext nanhunt`."""

    @line_cell_magic
    def nanhunt(self, line: str, cell: str | None = None) -> Report | Preflight | Hunt | None:
        """Replaced by the text of `help_text` when this module is loaded."""
        arguments = self._parse(line, cell is not None)
        try:
            if cell is None and arguments.pop(PREFLIGHT.name):
                kept = ("model", "step_fn", "optimizer", "scaler", "data")
                return nanhunt.preflight(**{name: arguments[name] for name in kept})
            if cell is None:
                return self._hunt(arguments)
            return self._hunt_cell(cell, arguments)
        except errors.UsageError as error:
            raise UsageError(f"%nanhunt: {error}") from None

    nanhunt.__doc__ = help_text()

    @line_magic
    def nanhunt_doctor(self, line: str) -> Diagnosis:
        """Examine a checkpoint, or a folder of them, and repair what can be repaired.

            %nanhunt_doctor path                    what is bad in it
            %nanhunt_doctor path --against model    ... and whether it fits this model
            %nanhunt_doctor path --fix              write NAME_FIXED.ext beside it

        `path` is a file or a folder; quote one with spaces. `model` is a name or an expression.
        Nothing in a file is executed. `--fix-weights` also sets weights that are not finite to 0.
        """
        parser = _Parser(prog="%nanhunt_doctor", add_help=False, allow_abbrev=False)
        parser.add_argument("path")
        parser.add_argument("--against")
        parser.add_argument("--fix", action="store_true")
        parser.add_argument("--fix-weights", action="store_true")
        try:
            found = parser.parse_args(shlex.split(line))
            model = self._value(found.against, is_model) if found.against else None
            fix = found.fix or found.fix_weights
            return nanhunt.doctor(found.path, model, fix=fix, fix_weights=found.fix_weights)
        except (errors.NanhuntError, ValueError, OSError) as error:
            raise UsageError(f"%nanhunt_doctor: {error}") from None

    def _hunt(self, arguments: dict[str, Any]) -> Report | Hunt:
        wanted, paused = arguments.pop(PANEL.name), arguments.pop(PAUSED.name)
        panel = panel_module(self.shell) if wanted else None
        if arguments["back"] is None:
            arguments["back"] = 1 if panel is None else _STEPS_BACK
        if panel is not None:
            report: Report | Hunt = panel.hunt_in_panel(self.shell, arguments, paused)
            return report
        if paused:
            raise errors.UsageError(
                "--paused opens the panel, which needs a notebook with ipywidgets. In code: "
                "hunt = nanhunt.Hunt(model, step_fn), then hunt.into()"
            )
        if arguments["progress"]:
            arguments["progress"] = NotebookProgress(self.shell)
        return nanhunt.hunt(**arguments)

    def _hunt_cell(self, cell: str, arguments: dict[str, Any]) -> Report:
        from nanhunt.core.hunting.loop import LoopHunt

        shell = self.shell
        assert shell is not None
        # Empty lines for the magic's own and for those that IPython takes off the beginning, so
        # that line numbers are those of the whole cell.
        taken_off = cell[: len(cell) - len(cell.lstrip())].count("\n")
        source = "\n" * (1 + taken_off) + shell.transform_cell(cell)
        name = shell.compile.cache(source, _number_of_the_running_cell(shell), raw_code=cell)
        if arguments["progress"]:
            arguments["progress"] = NotebookProgress(shell)
        loop = CellLoop(source, name, shell.user_ns)
        if loop.replayable:
            return _hunt_loop(loop, arguments)
        code = compile(source, name, "exec")
        # What is watched from outside cannot be run again with a remedy.
        watching = {k: v for k, v in arguments.items() if k not in _OF_TRIALS}
        with LoopHunt(**watching) as hunt:
            exec(code, shell.user_global_ns, shell.user_ns)  # noqa: S102  the user's own cell
        return hunt.report

    # -- what the line says ---------------------------------------------------------------

    def _parse(self, line: str, cell: bool) -> dict[str, Any]:
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"%nanhunt: {error}") from None
        if not words:
            wanted = "%%nanhunt model" if cell else "%nanhunt model step_fn"
            raise UsageError(f"{wanted}: name the model{'' if cell else ' and the step function'}")
        self._check_options(words, cell)
        found = _parser(cell).parse_args(words)
        arguments: dict[str, Any] = {"model": self._value(found.model, is_model)}
        if not cell:
            arguments["step_fn"] = self._value(found.step_fn, is_step)
        for option in options_for(cell):
            value = getattr(found, option.name)
            if option.kind == "object" and value is not None:
                value = self._value(value, lambda _: True)
            arguments[option.name] = value
        return arguments

    @staticmethod
    def _check_options(words: list[str], cell: bool) -> None:
        known = [option.flag for option in options_for(cell)]
        for word in words:
            name = word.split("=", 1)[0]
            if name.startswith("--") and name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
                raise UsageError(f"%nanhunt: unknown option {name}; {hint}")

    def _value(self, expression: str, fits: Any) -> Any:
        """Evaluates a name or expression in the user's namespace."""
        assert self.shell is not None
        namespace = self.shell.user_ns
        if expression in namespace:
            return namespace[expression]
        try:
            return eval(expression, self.shell.user_global_ns, namespace)  # noqa: S307
        except (NameError, AttributeError, SyntaxError) as error:
            names = [n for n, value in namespace.items() if not n.startswith("_") and fits(value)]
            close = difflib.get_close_matches(expression, names, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            if not close and names:
                hint = f"; fitting names here: {', '.join(sorted(names)[:8])}"
            raise UsageError(f"%nanhunt: {expression}: {error}{hint}") from None


def _number_of_the_running_cell(shell: InteractiveShell) -> int:
    """The number at the cell's prompt; IPython 9 counts on before a cell runs, 8 after it."""
    numbers = getattr(shell.compile, "_filename_map", {})
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_code.co_filename in numbers:
            return int(numbers[frame.f_code.co_filename])
        frame = frame.f_back
    return int(shell.execution_count)


def _hunt_loop(loop: CellLoop, arguments: dict[str, Any]) -> Report:
    """Hunts with the loop's body as the step; ends with the loop."""
    try:
        loop.before()
        options = {**arguments, "step_fn": loop.step_fn(), "data": loop.items()}
        with nanhunt.Hunt(**options) as hunt:
            report = hunt.run(None)
        if report.healthy or report.status == "nothing_watched":  # a loop over nothing
            loop.after()
    finally:
        loop.forget()
    return report


def load(shell: InteractiveShell) -> None:
    """Registers the magics and their completion; loading twice changes nothing."""
    shell.register_magics(NanhuntMagics)
    matchers = shell.Completer.custom_matchers
    if not any(isinstance(matcher, _Matcher) for matcher in matchers):
        matchers.append(_Matcher(shell))


def panel_module(shell: Any) -> Any:
    """The panel's module where widgets can be shown: in a kernel, with ipywidgets."""
    if getattr(shell, "kernel", None) is None:
        return None
    try:
        return importlib.import_module("nanhunt.panel.panel")
    except ModuleNotFoundError as error:
        if error.name == "ipywidgets":
            return None
        raise


def unload(shell: InteractiveShell) -> None:
    """Takes everything back; unloading twice changes nothing."""
    panel = sys.modules.get("nanhunt.panel.panel")
    if panel is not None:
        panel.close_panel()
    for kind in ("line", "cell"):
        for name in ("nanhunt", "nanhunt_doctor"):
            shell.magics_manager.magics[kind].pop(name, None)
    matchers = shell.Completer.custom_matchers
    matchers[:] = [matcher for matcher in matchers if not isinstance(matcher, _Matcher)]


class _Matcher:
    """IPython's completer asks this for the line of the magic; elsewhere it is silent."""

    matcher_api_version = 2
    matcher_identifier = "nanhunt"
    matcher_priority = 100

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self.__qualname__ = self.matcher_identifier  # IPython reads it of every matcher

    def __call__(self, context: CompletionContext) -> dict[str, Any]:
        line = context.line_with_cursor[: context.cursor_position]
        command = re.search(r"(%%?)nanhunt\s+.*$", line)
        if command is None:
            return {"completions": []}
        symbol = re.search(r"\S*$", line)
        word = symbol[0] if symbol else ""
        names = complete(command[0], word, self._shell.user_ns, command[1] == "%%")
        # The completer replaces its own token, which may begin after the dashes of an option.
        skip = len(word) - len(context.token) if word.endswith(context.token) else 0
        return {
            "completions": [SimpleCompletion(text=name[skip:]) for name in names],
            "suppress": bool(names),
        }
