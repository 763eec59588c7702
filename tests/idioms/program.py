"""A training script, taken apart: what comes before its loop, the loop, its body as a step.

A program is a script as people write it: its last `for` or `while` loop at the top level trains
`model`, or the modules in the dict `models`. Comments say what the grid has to know of it:

    # ways: cell, run          only these ways in, with the reason after a dash; else all
    # allows: KIND             a warning of this kind, cause or preflight fact may be told
    # fault: CODE              the program with a fault has CODE in place of the next line
    # options: optimizer        variables that are given to the hunt, by their keywords
    # place: module=NAME       where the fault is, if not at its line: an attribute of the finding
"""

from __future__ import annotations

import ast
import copy
import dis
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent / "programs"
MARK = "# fault"
WAYS = ("hunt", "stepped", "cell", "run", "guard", "preflight")
FAULTY_WAYS = ("hunt", "cell", "run")
Space = dict[str, Any]


class Program:
    """One program of the grid, or the same with its fault put in.

    Args:
        path: the file.
        folder: where the program's text is put as a script.
        faulty: whether to put the fault in.
    """

    def __init__(self, path: Path, folder: Path, faulty: bool = False) -> None:
        text = path.read_text(encoding="utf-8")
        self.text = with_fault(text) if faulty else text
        self.said = {key: said(text, key) for key in ("allows", "place")}
        self.script = folder / path.name
        self.script.write_text(self.text, encoding="utf-8")
        body = ast.parse(self.text).body
        place = max(i for i, node in enumerate(body) if isinstance(node, ast.For | ast.While))
        loop = body[place]
        assert isinstance(loop, ast.For | ast.While)
        self._loop = loop
        self.fault_in_model = any(
            MARK + "\n" in _lines(self.text, node) for node in body if _is_of_a_model(node)
        )
        self._before, self._after = body[:place], body[place + 1 :]

    def parts(self) -> tuple[str, str]:
        """The text before the loop, and the text from the loop on."""
        lines = self.text.splitlines(keepends=True)
        return "".join(lines[: self._loop.lineno - 1]), "".join(lines[self._loop.lineno - 1 :])

    def options(self, space: Space) -> dict[str, Any]:
        """What is given to the hunt beside model and step: variables by their keywords."""
        words = said(self.text, "options")
        return {name: space[name] for name in words[0].split(", ")} if words else {}

    def set_up(self) -> Space:
        """Runs what stands before the loop."""
        space: Space = {"__name__": "__main__", "__file__": str(self.script)}
        self._run(self._before, space)
        return space

    def loop(self, space: Space) -> int:
        """Runs the loop and what stands after it; returns how many passes a `for` loop had."""
        if isinstance(self._loop, ast.While):
            self._run([self._loop, *self._after], space)
            return 0
        passes = 0

        def counted(items: Iterable[Any]) -> Iterator[Any]:
            nonlocal passes
            for item in items:
                passes += 1
                yield item

        loop = copy.copy(self._loop)
        loop.iter = ast.Call(ast.Name("__counted__", ast.Load()), [loop.iter], [])
        space["__counted__"] = counted
        self._run([loop, *self._after], space)
        return passes

    def after(self, space: Space) -> None:
        """Runs what stands after the loop."""
        self._run(self._after, space)

    def items(self, space: Space) -> Iterable[Any]:
        """What the loop goes over."""
        assert isinstance(self._loop, ast.For), "a while loop is no step function: say its ways"
        return eval(compile(ast.Expression(self._loop.iter), str(self.script), "eval"), space)

    def step_fn(self, space: Space) -> Callable[[Any], Any]:
        """The loop's body as a function of one item, whose variables are the program's."""
        assert isinstance(self._loop, ast.For)
        body = [_Returning().visit(node) for node in ast.parse(self.text).body]
        loop = next(node for node in body if node.lineno == self._loop.lineno)
        names = _assigned(self._compile([self._loop]))
        taken = ast.Assign([loop.target], ast.Name("item", ast.Load()))
        loss = [ast.Return(ast.Name("loss", ast.Load()))] if "loss" in names else []
        step = ast.parse("def training_step(item): pass").body[0]
        assert isinstance(step, ast.FunctionDef)
        step.body = [ast.Global(names), taken, *loop.body, *loss]
        made: Space = {}
        exec(self._compile([step]), space, made)
        return made["training_step"]

    def _run(self, nodes: list[ast.stmt], space: Space) -> None:
        exec(self._compile(nodes), space)

    def _compile(self, nodes: list[Any]) -> types.CodeType:
        module = ast.fix_missing_locations(ast.Module(nodes, []))
        return compile(module, str(self.script), "exec")


class _Returning(ast.NodeTransformer):
    """A `continue` of a step's own loop ends the step."""

    def visit_For(self, node: ast.For) -> ast.For:
        node.body = [_Continues().visit(child) for child in node.body]
        return node


class _Continues(ast.NodeTransformer):
    def visit_Continue(self, node: ast.Continue) -> ast.stmt:
        return ast.copy_location(ast.Return(None), node)

    def visit_Break(self, node: ast.Break) -> ast.stmt:
        raise AssertionError("a break is no step function's: say the program's ways")

    def _same(self, node: Any) -> Any:
        return node  # a continue inside is another loop's

    visit_For = visit_While = visit_FunctionDef = visit_ClassDef = _same


def _is_of_a_model(node: ast.stmt) -> bool:
    """Whether it is a class of modules or autograd functions: no optimizer, no trainer."""
    bases = [ast.unparse(b) for b in node.bases] if isinstance(node, ast.ClassDef) else []
    return any(base.rpartition(".")[2] != "Optimizer" for base in bases)


def _lines(text: str, node: ast.stmt) -> str:
    return "".join(text.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno])


def _assigned(code: types.CodeType) -> list[str]:
    stores = (i for i in dis.get_instructions(code) if i.opname == "STORE_NAME")
    return sorted({i.argval for i in stores})


def with_fault(text: str) -> str:
    """The program with the line after `# fault: CODE` replaced by CODE, marked."""
    lines = text.splitlines()
    place = next(i for i, line in enumerate(lines) if line.strip().startswith(f"{MARK}: "))
    indent = lines[place].partition("#")[0]
    lines[place + 1] = f"{indent}{lines[place].partition(': ')[2]}  {MARK}"
    return "\n".join(lines) + "\n"


def has_fault(path: Path) -> bool:
    """Whether the program has a fault to be put in."""
    return bool(said(path.read_text(encoding="utf-8"), "fault"))


def said(text: str, key: str) -> list[str]:
    """What the comments `# KEY: ...` say."""
    starts = f"# {key}: "
    lines = (line.strip() for line in text.splitlines())
    return [line[len(starts) :] for line in lines if line.startswith(starts)]


def ways_of(path: Path) -> list[str]:
    """The ways in that the program is run through."""
    chosen = said(path.read_text(encoding="utf-8"), "ways")
    wanted = chosen[0].partition(" - ")[0].split(", ") if chosen else list(WAYS)
    assert set(wanted) <= set(WAYS), f"{path.name}: {chosen}"
    return [way for way in WAYS if way in wanted]


def paths() -> dict[str, Path]:
    """Every program by its name."""
    return {path.stem: path for path in sorted(PROGRAMS.glob("*/*.py"))}
