"""Private names of torch stand in one place, so that another torch is a job for one file."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint  # other tests load it too, and its names count then
from torch import nn
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parent.parent / "nanhunt"
THE_PLACE = ROOT / "torch_private.py"
# Names that stand in files which any version of torch has written: a format, and no access.
NAMES_IN_FILES = {
    "checkpoints/formats/distributed.py": {
        *("'_get_layout'", "'_MEM_FORMAT_ENCODING'", "'_StorageInfo'", "'_StoragePrefix'")
    }
}
_PRIVATE = re.compile(r"_(?!_)\w+")
_IN_A_STRING = re.compile(r"torch(\.\w+)*\._(?!_)\w+")


def _private(name: str) -> bool:
    return _PRIVATE.fullmatch(name) is not None


def private_attributes() -> frozenset[str]:
    """Names with one leading underscore of the objects of torch that a training run has."""
    layer = nn.BatchNorm1d(2)
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    output = layer(torch.ones(2, 2))
    objects = [
        layer,
        layer.weight,
        optimizer,
        output,
        output.grad_fn,
        output.untyped_storage(),
        torch.optim.lr_scheduler.StepLR(optimizer, 1),
        torch.amp.GradScaler("cpu"),
        torch.autocast("cpu"),
        iter(DataLoader([1])),
        torch.compile(nn.Linear(1, 1), backend="eager"),
        torch.jit.ScriptModule,
        torch.TypedStorage,
        torch.overrides.TorchFunctionMode,
        torch.utils._python_dispatch.TorchDispatchMode,
        torch.ops.aten.add,
        torch.ops.aten.add.Tensor,
    ]
    return frozenset(name for each in objects for name in dir(each) if _private(name))


def private_globals() -> frozenset[str]:
    """Names with one leading underscore in all modules of torch that are loaded."""
    modules = [m for name, m in sys.modules.items() if name.partition(".")[0] == "torch"]
    return frozenset(name for module in modules for name in vars(module) if _private(name))


ATTRIBUTES = private_attributes()
GLOBALS = private_globals()


class Names:
    """What one file imports from torch, and what it defines itself.

    Attributes:
        of_torch: local names of what is imported from torch.
        attributes: those of its own classes and their instances.
        variables: names that it binds.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.of_torch = {"torch"}
        self.attributes: set[str] = set()
        self.variables: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
                self.of_torch |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.Import):
                loaded = [alias for alias in node.names if alias.name.split(".")[0] == "torch"]
                self.of_torch |= {alias.asname or "torch" for alias in loaded}
            elif isinstance(node, ast.ClassDef):
                self.attributes |= set(map(_bound, node.body))
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if _is_self(node.value):
                    self.attributes.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.variables.add(node.id)


def _bound(statement: ast.stmt) -> str:
    """The name that a statement in a class's body gives the class, or an empty string."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return statement.name
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    return next((target.id for target in targets if isinstance(target, ast.Name)), "")


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_uses(tree: ast.Module, defined_elsewhere: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each use of a private name of torch.

    Args:
        tree: a file's syntax tree.
        defined_elsewhere: names that the package's classes have: `self` may have inherited them.
    """
    names = Names(tree)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = _imported(node)
        elif isinstance(node, ast.Attribute):
            found = _attribute(node, names, defined_elsewhere, whole=id(node) not in inner)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = _written(node.value, names)
        else:
            continue
        yield from ((node.lineno, name) for name in found)


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        loaded = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        loaded = [alias.name for alias in node.names]
    parts = [name.split(".") for name in loaded]
    return [".".join(p) for p in parts if p[0] == "torch" and any(map(_private, p))]


def _attribute(
    node: ast.Attribute, names: Names, inherited: frozenset[str], whole: bool
) -> list[str]:
    root: ast.expr = node
    while isinstance(root, ast.Attribute):
        root = root.value
    written = ast.unparse(node)
    if isinstance(root, ast.Name) and root.id in names.of_torch:
        # The rest of `torch.ops.aten._softmax` is an operator's name.
        private = any(map(_private, written.split("."))) and not written.startswith("torch.ops.")
        return [written] if private and whole else []
    if not _private(node.attr):
        return []
    own = names.attributes | inherited if _is_self(node.value) else names.attributes
    return [written] if node.attr in ATTRIBUTES - own else []


def _written(text: str, names: Names) -> list[str]:
    """A string that is a private name, as for `getattr`; operators in tables are none."""
    if _IN_A_STRING.fullmatch(text):
        return [repr(text)]
    known = text in ATTRIBUTES or text in GLOBALS
    return [repr(text)] if known and text not in names.variables and not _operator(text) else []


def _operator(name: str) -> bool:
    return hasattr(torch.ops.aten, name)


def uses_in(source: str, defined_elsewhere: frozenset[str] = frozenset()) -> list[str]:
    """The uses in a piece of source."""
    return [name for _, name in private_uses(ast.parse(source), defined_elsewhere)]


def test_private_names_of_torch_stand_in_one_place() -> None:
    files = [path for path in ROOT.rglob("*.py") if path != THE_PLACE]
    trees = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in files
    }
    defined = frozenset(name for tree in trees.values() for name in Names(tree).attributes)
    found = [
        f"{path}:{line} {name}"
        for path, tree in trees.items()
        for line, name in private_uses(tree, defined)
        if name not in NAMES_IN_FILES.get(path, ())
    ]
    assert not found, "\n".join(["private names of torch outside torch_private:", *sorted(found)])


def test_the_place_of_private_names_needs_nothing_of_the_package() -> None:
    tree = ast.parse(THE_PLACE.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        (node.module or ".") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in imports
    }
    roots = {name.partition(".")[0] for name in names}
    assert roots <= {"torch"} | sys.stdlib_module_names


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch._dynamo", ["torch._dynamo"]),
        ("from torch.utils import _pytree", ["torch.utils._pytree"]),
        ("from torch.utils._pytree import tree_map", ["torch.utils._pytree.tree_map"]),
        ("import torch\ntorch._C", ["torch._C"]),
        ("import torch\ntorch._C._functorch.x", ["torch._C._functorch.x"]),
        ("from torch import autograd as a\na._engine_run_backward()", ["a._engine_run_backward"]),
        ("import torch.nn.functional as F\nF._canonical_mask", ["F._canonical_mask"]),
        ("scaler._scale", ["scaler._scale"]),
        ("for m in model.modules(): m._buffers.clear()", ["m._buffers"]),
        ("self._made._parameters", ["self._made._parameters"]),
        ("self._buffers", ["self._buffers"]),
        ("tensor._version", ["tensor._version"]),
        ("getattr(o, '_step_supports_amp_scaling', 0)", ["'_step_supports_amp_scaling'"]),
        ("name == '_engine_run_backward'", ["'_engine_run_backward'"]),
        ("'torch._dynamo' in sys.modules", ["'torch._dynamo'"]),
        ("def _version(t): return t._version", ["t._version"]),
        ("operator._schema", ["operator._schema"]),
        # None of these is torch's, or it is public, or an operator's name.
        ("import torch\ntorch.ops.aten._softmax.default", []),
        ("OPERATORS = {'_softmax', '_to_copy'}", []),
        ("class A:\n def f(self): self._scale = 1\n def g(self, other): return other._scale", []),
        ("import sys\nsys._getframe()", []),
        ("import torch\ntorch.Tensor.__add__", []),
    ],
)  # fmt: skip
def test_what_counts_as_a_private_name(source: str, found: list[str]) -> None:
    assert uses_in(source) == [*found]
