"""The loop of a `%%nanhunt` cell as a step that can be run again.

Where the cell's work is one `for` loop (or such loops inside each other, epochs around
batches), the body of the innermost one is the step and the iterable gives its batches. Then the
whole step, loss code included, can be undone, replayed and observed. Any other cell is watched
from outside (`nanhunt.core.hunting.loop`).
"""

from __future__ import annotations

import ast
import types
from collections.abc import Callable, Iterator
from typing import Any

_ITEM, _FINISHED = "__nanhunt_item__", "__nanhunt_finished__"
_NO_FLOW = (ast.Break, ast.Continue, ast.Return)
Space = dict[str, Any]


class CellLoop:
    """A cell taken apart: what comes before its loop, the loop, what comes after.

    Args:
        source: the cell's code, without the magic's line.
        filename: what the code is compiled as, so that lines belong to the cell.
        space: the user's namespace.
    """

    def __init__(self, source: str, filename: str, space: Space) -> None:
        self._filename = filename
        self._space = space
        body = ast.parse(source, filename).body
        place = next((i for i, node in enumerate(body) if _is_training_loop(node)), None)
        self._chain: list[ast.For] = []
        if place is None:
            return
        node = body[place]
        assert isinstance(node, ast.For)
        self._before, self._after = body[:place], body[place + 1 :]
        chain = _chain(node)
        if any(_is_training_loop(other) for other in self._after) or chain is None:
            return
        self._chain = chain
        inner = chain[-1]
        done = ast.Assign([ast.Name(_FINISHED, ast.Store())], ast.Constant(True))
        once = ast.For(
            ast.Name(_FINISHED, ast.Store()), ast.Tuple([ast.Constant(False)], ast.Load()),
            inner.body, [done],
        )  # fmt: skip
        # `for ... in (False,)`: a `continue` in the body ends the step, a `break` shows.
        self._body = types.FunctionType(self._compile([once]), space)

    @property
    def replayable(self) -> bool:
        """Whether the cell has the form that can be run again."""
        return bool(self._chain)

    def step_fn(self) -> Callable[[Any], Any]:
        """The loop's body as a function of one item."""
        assign = self._assigner(self._chain[-1].target)

        def step(item: Any) -> None:
            assign(item)
            self._body()

        step.__wrapped__ = self._body  # type: ignore[attr-defined]
        return step

    def items(self) -> Iterator[Any]:
        """Runs the code around the body and yields the innermost loop's items."""
        yield from self._level(0)

    def before(self) -> None:
        """Runs what stands before the loop."""
        self._run(self._before)

    def after(self) -> None:
        """Runs what stands after the loop."""
        self._run(self._after)

    def forget(self) -> None:
        """Takes the helper names out of the user's namespace."""
        for name in (_ITEM, _FINISHED):
            self._space.pop(name, None)

    def _level(self, depth: int) -> Iterator[Any]:
        loop = self._chain[depth]
        iterable = eval(  # noqa: S307  the user's own cell
            compile(ast.Expression(loop.iter), self._filename, "eval"), self._space
        )
        if depth == len(self._chain) - 1:
            for item in iterable:
                yield item
                if self._space.get(_FINISHED) is False:  # the body left by `break`
                    return
            return
        assign = self._assigner(loop.target)
        place = loop.body.index(self._chain[depth + 1])
        for item in iterable:
            assign(item)
            self._run(loop.body[:place])
            yield from self._level(depth + 1)
            self._run(loop.body[place + 1 :])

    def _assigner(self, target: ast.expr) -> Callable[[Any], None]:
        code = self._compile([ast.Assign([target], ast.Name(_ITEM, ast.Load()))])

        def assign(item: Any) -> None:
            self._space[_ITEM] = item
            exec(code, self._space)  # noqa: S102  the user's own cell

        return assign

    def _run(self, nodes: list[ast.stmt]) -> None:
        if nodes:
            exec(self._compile(nodes), self._space)  # noqa: S102  the user's own cell

    def _compile(self, nodes: list[ast.stmt]) -> types.CodeType:
        module = ast.fix_missing_locations(ast.Module(nodes, []))
        return compile(module, self._filename, "exec")


def _is_training_loop(node: ast.AST) -> bool:
    """Whether a `for` loop holds a backward pass."""
    return isinstance(node, ast.For) and _calls(node, "backward")


def _calls(node: ast.AST, method: str) -> bool:
    return any(
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == method
        for call in ast.walk(node)
    )


def _chain(loop: ast.For) -> list[ast.For] | None:
    """The loop and those directly inside it down to the one with the backward pass.

    Returns:
        None when one of them has an `else`, when code around the inner loop may leave it, or
        when not every run of the body updates: then steps would not be the optimizer's.
    """
    chain = [loop]
    while True:
        current = chain[-1]
        if current.orelse:
            return None
        inner = [node for node in current.body if _is_training_loop(node)]
        if not inner:
            return chain if _always_updates(current.body) else None
        around = [node for node in current.body if node is not inner[0]]
        if len(inner) > 1 or any(isinstance(n, _NO_FLOW) for a in around for n in ast.walk(a)):
            return None
        assert isinstance(inner[0], ast.For)
        chain.append(inner[0])


def _always_updates(body: list[ast.stmt]) -> bool:
    plain = (ast.Expr, ast.Assign, ast.With)
    return any(isinstance(node, plain) and _calls(node, "step") for node in body)
