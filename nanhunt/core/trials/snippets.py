"""A remedy as code: the user's own line with the one change in it.

The instruction that made a call knows its exact columns (Python 3.11 and newer), so the call's
own expression can be taken out of the line, changed, and put back.
"""

from __future__ import annotations

import ast
import linecache
import textwrap
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from nanhunt.core.program.torch_calls import Call, Site


class Edit(NamedTuple):
    """Lines of a file and what to write in their place.

    Attributes:
        file: the file, or a notebook cell's name for it.
        first, last: line numbers, counted from 1; 0 when nothing is replaced.
        text: the new lines.
    """

    file: str
    first: int
    last: int
    text: str


class Expression(NamedTuple):
    """A call in the user's source.

    Attributes:
        site: the call's place.
        first, last: its lines.
        start, end: its columns (in bytes) in the first and the last line.
        text: its source in parentheses.
        node: the syntax tree of that.
    """

    site: Site
    first: int
    last: int
    start: int
    end: int
    text: str
    node: ast.expr

    @property
    def file(self) -> str:
        """The file it stands in."""
        return self.site.code.co_filename

    @property
    def names_function(self) -> bool:
        """Whether the torch function is called by its own name, not through a module."""
        function = self.node.func if isinstance(self.node, ast.Call) else None
        written = getattr(function, "attr", getattr(function, "id", None))
        return bool(written == getattr(self.site.function, "__name__", ""))

    def argument(self, position: int) -> ast.expr | None:
        """The expression of an argument of the torch function, the receiver being the first."""
        place = self._place(position)
        return None if place is None else _get(self.node, place)

    def with_arguments(self, changes: dict[int, Callable[[str], str]]) -> str | None:
        """The expression with some of its arguments rewritten, or None if they are not in it."""
        pieces = []
        for position, change in changes.items():
            part = self.argument(position)
            if part is None:
                return None
            start, end, bracketed = _with_brackets(self.text.encode(), *_span(self.text, part))
            old = self.text.encode()[start:end].decode()
            new = change(old if bracketed or _is_atom(part) else f"({old})")
            atom = _is_atom(ast.parse(new, mode="eval").body)
            pieces.append((start, end, new if atom else f"({new})"))
        text = self.text.encode()
        for start, end, new in sorted(pieces, reverse=True):
            text = text[:start] + new.encode() + text[end:]
        return text.decode()[1:-1]

    def with_part(self, node: ast.expr, new: str) -> str:
        """The expression with another text in the place of one of its nodes."""
        start, end = _span(self.text, node)
        text = self.text.encode()
        return (text[:start] + new.encode() + text[end:]).decode()[1:-1]

    def written(self, node: ast.expr) -> str:
        """The source of a part of it."""
        start, end = _span(self.text, node)
        return self.text.encode()[start:end].decode()

    def _place(self, position: int) -> tuple[str, int] | tuple[str] | None:
        """Where in the tree an argument is."""
        node, name = self.node, getattr(self.site.function, "__name__", "")
        if isinstance(node, ast.BinOp) and position in (0, 1):
            swapped = name.startswith("__r") and name != "__rshift__"
            return ("left",) if (position == 0) != swapped else ("right",)
        if isinstance(node, ast.UnaryOp) and position == 0:
            return ("operand",)
        if not isinstance(node, ast.Call):
            return None
        if self._is_method():
            if position == 0:
                return ("func", -1)
            position -= 1
        if position < len(node.args) and not isinstance(node.args[position], ast.Starred):
            return ("args", position)
        for index, keyword in enumerate(node.keywords):
            if (position, keyword.arg) in ((0, "input"), (1, "other"), (1, "target")):
                return ("keywords", index)
        return None

    def _is_method(self) -> bool:
        """Whether it is `x.f()`: a method of a tensor, called by its own name."""
        function = self.node.func if isinstance(self.node, ast.Call) else None
        name = getattr(self.site.function, "__name__", "")
        owner = getattr(self.site.function, "__objclass__", None)
        declared = getattr(torch.Tensor, name, None) is self.site.function
        on_tensor = owner is not None or declared
        return isinstance(function, ast.Attribute) and function.attr == name and on_tensor


def _get(node: ast.expr, place: tuple[str, int] | tuple[str]) -> ast.expr:
    if place[0] == "func":
        return node.func.value  # type: ignore[attr-defined, no-any-return]
    value = getattr(node, place[0])
    if len(place) == 1:
        return value  # type: ignore[no-any-return]
    item = value[place[1]]
    return item.value if isinstance(item, ast.keyword) else item


def _span(text: str, node: ast.expr) -> tuple[int, int]:
    """Where a node begins and ends, in bytes from the beginning of the text."""
    starts = [0]
    for line in text.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
    return starts[node.lineno - 1] + node.col_offset, starts[end_line - 1] + end_column


def _with_brackets(text: bytes, start: int, end: int) -> tuple[int, int, bool]:
    """Takes brackets that the user put around an operand as a part of it; not a call's own."""
    around = text[start - 1 : start] == b"(" and text[end : end + 1] == b")"
    before = text[start - 2 : start - 1] if start >= 2 else b""
    if around and start > 1 and not (before.isalnum() or before in (b"_", b"]", b")")):
        return start - 1, end + 1, True
    return start, end, False


def _is_atom(node: ast.expr) -> bool:
    return isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.Constant)


def expression_of(call: Call | None) -> Expression | None:
    """Finds the source of a call; None where there is none to find."""
    if call is None or call.site is None:
        return None
    site = call.site
    positions = getattr(site.code, "co_positions", None)  # Python 3.11 and newer
    if positions is None:
        return None
    first, last, start, end = list(positions())[site.position // 2]
    if first is None or last is None or start is None or end is None:
        return None
    text = f"({_cut(site.code.co_filename, first, last, start, end)})"
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:  # an augmented assignment, or the file has changed
        return None
    return Expression(site, first, last, start, end, text, node)


def _lines(file: str, first: int, last: int) -> list[str]:
    return [linecache.getline(file, number).rstrip("\n") for number in range(first, last + 1)]


def _cut(file: str, first: int, last: int, start: int, end: int) -> str:
    lines = [line.encode() for line in _lines(file, first, last)]
    if not any(lines):
        return ""
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    return b"\n".join(lines).decode()


def replaced(expression: Expression | None, text: str | None) -> Edit | None:
    """The lines of an expression with another one in its place."""
    if expression is None or text is None:
        return None
    lines = [line.encode() for line in _lines(expression.file, expression.first, expression.last)]
    if not any(lines):
        return None
    new = lines[0][: expression.start] + text.encode() + lines[-1][expression.end :]
    return Edit(expression.file, expression.first, expression.last, new.decode())


def under_autocast_off(expression: Expression, text: str | None, device: str) -> Edit | None:
    """The statement around an expression, changed, in a block with autocast off.

    Returns:
        None inside a lambda or comprehension, where no block can stand.
    """
    if text is None or expression.site.code.co_name.startswith("<l"):
        return None
    whole = "".join(linecache.getlines(expression.file))
    try:
        statement = _innermost_statement(ast.parse(whole), expression)
    except SyntaxError:  # a notebook cell with a magic in it
        return None
    if statement is None or statement.end_lineno is None:
        return None
    inner = replaced(expression, text)
    if inner is None:
        return None
    before = _lines(expression.file, statement.lineno, expression.first - 1)
    after = _lines(expression.file, expression.last + 1, statement.end_lineno)
    block = "\n".join([*before, inner.text, *after])
    margin = block[: len(block) - len(block.lstrip())]
    body = textwrap.indent(textwrap.dedent(block), f"{margin}    ")
    head = f'{margin}with torch.autocast("{device}", enabled=False):'
    return Edit(expression.file, statement.lineno, statement.end_lineno, f"{head}\n{body}")


def _innermost_statement(tree: ast.AST, expression: Expression) -> ast.stmt | None:
    found = None
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt) or hasattr(node, "body") or node.end_lineno is None:
            continue
        if node.lineno <= expression.first and expression.last <= node.end_lineno:
            found = node
    return found


def code(lines: Iterable[str]) -> Edit:
    """A remedy that stands on its own, before the training goes on."""
    return Edit("", 0, 0, "\n".join(lines))
