"""Lines of the user's code: which frames count, and how a frame becomes a `Source`."""

from __future__ import annotations

import ast
import functools
import linecache
import os
import sys
import sysconfig
from importlib import metadata
from pathlib import PurePath
from types import CodeType, FrameType

import torch

from nanhunt.records.report import Source

Line = tuple[CodeType, int]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_STDLIB = tuple(
    os.path.abspath(path) + os.sep
    for path in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
)
_NOTEBOOK = tuple(
    os.path.join("site-packages", name) + os.sep
    for name in ("IPython", "ipykernel", "traitlets", "tornado", "nbclient", "_pytest", "pluggy")
)
# The one function of nanhunt that calls the user's step: what lies outside it is no part of it.
CALL_STEP = "_call_step"
_ENGINE = os.path.join("torch", "autograd", "graph.py")
_FUNCTION = os.path.join("torch", "autograd", "function.py")
_CHECKPOINT = os.path.join("torch", "utils", "checkpoint.py")
_UPDATES = (
    os.path.join("torch", "nn", "utils", "clip_grad.py"),
    os.path.join("torch", "amp", "grad_scaler.py"),
    os.path.join("torch", "optim", "optimizer.py"),
)

# What a tensor subclass or a mode of the user's is called by for each operation.
_HANDLERS = ("__torch_function__", "__torch_dispatch__")
_PARTS = {"clip_grad_norm_": "clip", "clip_grad_value_": "clip", "unscale_": "unscale"}


class Stack:
    """The user's frames at one operation, innermost first.

    Attributes:
        lines: frames of the user's code, from the innermost out to the step function.
        before_apply: how many of `lines` lie inside a custom `autograd.Function`.
        inside_engine: how many of `lines` were called by the autograd engine (hooks,
            custom backwards, recomputation).
        recompute: whether activation checkpointing is running its second pass.
        update: whether this is gradient clipping, unscaling or an optimizer.
        part: which of them: `"clip"`, `"unscale"` or an empty string.
    """

    __slots__ = ("before_apply", "inside_engine", "lines", "part", "recompute", "update")

    def __init__(self, frame: FrameType | None) -> None:
        self.lines: list[Line] = []
        self.before_apply = self.inside_engine = 0
        self.recompute = self.update = False
        self.part = ""
        in_engine = False
        while frame is not None:
            code = frame.f_code
            kind = kind_of(code.co_filename)
            if kind == "user":
                self.lines.append((code, frame.f_lineno))
            elif kind == "own" and code.co_name == CALL_STEP:
                break
            elif kind == "engine":
                in_engine = True
                self.inside_engine = len(self.lines)
            elif kind == "function" and not self.recompute and not self.before_apply:
                self.before_apply = len(self.lines)
            elif kind == "checkpoint" and not in_engine:
                self.recompute |= code.co_name in ("unpack_hook", "backward", "recompute_fn")
            elif kind == "update" and code.co_name not in ("scale", "zero_grad"):
                self.update = True
                self.part = _PARTS.get(code.co_name, self.part)
            frame = frame.f_back

    def sources(self, skip: int = 0) -> tuple[Source, ...]:
        """The frames as sources, outermost first, without the `skip` innermost ones.

        Those of installed packages are left out, unless there are no others.
        """
        lines = self.lines[skip:]
        lines = [line for line in lines if not passes_on(line)] or lines
        own = [line for line in lines if not is_installed(line[0].co_filename)]
        return tuple(source_of(line) for line in reversed(own or lines))

    def library(self, skip: int = 0) -> Source | None:
        """The innermost frame but the `skip` innermost ones, where it is an installed package's."""
        innermost = next(iter(self.lines[skip:]), None)
        if innermost is None or not is_installed(innermost[0].co_filename):
            return None
        return source_of(innermost)


@functools.lru_cache(maxsize=4096)
def kind_of(filename: str) -> str:
    """What a file is: the user's, nanhunt's own, torch's or a part of it, another library's."""
    if filename.startswith(_PACKAGE):
        return "own"
    if filename.startswith(_TORCH):
        for ending, kind in (
            (_ENGINE, "engine"),
            (_FUNCTION, "function"),
            (_CHECKPOINT, "checkpoint"),
            *((ending, "update") for ending in _UPDATES),
        ):
            if filename.endswith(ending):
                return kind
        return "torch"
    if filename.startswith("<frozen") or any(part in filename for part in _NOTEBOOK):
        return "library"
    if filename.startswith(_STDLIB) and "site-packages" not in filename:
        return "library"
    return "user"


def is_user_code(filename: str) -> bool:
    """Whether a file is neither torch, nanhunt nor the standard library."""
    return kind_of(filename) == "user"


def is_installed(filename: str) -> bool:
    """Whether a file belongs to an installed package; one installed with `-e` is the user's."""
    return _inside_packages(filename) is not None


def _inside_packages(filename: str) -> str | None:
    """The path below the folder of installed packages, or None."""
    parts = PurePath(filename).parts
    places = [i for i, part in enumerate(parts) if part in ("site-packages", "dist-packages")]
    return "/".join(parts[places[-1] + 1 :]) if places else None


def package_of(filename: str) -> str:
    """The installed package of a file with its version, and the path in it.

    For example `fastlosses 1.2, fastlosses/utils.py`.
    """
    path = _inside_packages(filename) or filename
    name = path.partition("/")[0].removesuffix(".py")
    try:
        return f"{name} {metadata.version(name)}, {path}"
    except metadata.PackageNotFoundError:  # installed under another name
        return f"{name}, {path}"


def passes_on(line: Line) -> bool:
    """Whether a line does nothing but pass an operation on, in a mode or tensor subclass."""
    return line[0].co_name in _HANDLERS and _calls_what_it_was_given(line)


@functools.lru_cache(maxsize=256)
def _calls_what_it_was_given(line: Line) -> bool:
    code, number = line
    try:
        (statement,) = ast.parse(linecache.getline(code.co_filename, number).strip()).body
    except (SyntaxError, ValueError):  # a part of a statement: that may be anything
        return False
    called = getattr(getattr(statement, "value", None), "func", None)
    if isinstance(called, ast.Attribute):
        return called.attr == code.co_name
    return isinstance(called, ast.Name) and called.id == code.co_varnames[1]


def source_of(line: Line) -> Source:
    """Reads the text of a line; for a notebook cell also its execution count."""
    code, number = line
    return Source(
        file=code.co_filename,
        line=number,
        code=linecache.getline(code.co_filename, number).strip(),
        function=code.co_name,
        cell=_cell_number(code.co_filename),
    )


def _cell_number(filename: str) -> int | None:
    """The execution count of the cell that IPython compiled under this name, if any."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    names = getattr(getattr(shell, "compile", None), "_filename_map", None)
    return names.get(filename) if isinstance(names, dict) else None
