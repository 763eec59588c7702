"""Promises of the package itself: what it needs, what it contains, and its command."""

from __future__ import annotations

import ast
import doctest
import graphlib
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import find_chromium
import grimp
import pytest

import nanhunt
from nanhunt.core.program import source_lines
from nanhunt.records import report
from tests.forks import nanhunt_command

ROOT = Path(__file__).resolve().parent.parent

# Put in front of a program: importing any of these fails, as where they are not installed.
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)
sys.meta_path.insert(0, Blocker())
"""
NOTEBOOK_PACKAGES = (
    "IPython",
    "ipywidgets",
    "ipykernel",
    "matplotlib",
    "traitlets",
    "jupyter_core",
)

HUNT = """
import torch, nanhunt
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def step():
    optimizer.zero_grad()
    (model(torch.ones(1, 2)) * 0).log().mean().backward()
    optimizer.step()
found = nanhunt.hunt(model, step, steps=2, progress=False)
print(found.finding.op)
assert str(found) and found.to_html()
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with the checkout on its path, away from the checkout."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


def without(blocked: tuple[str, ...], program: str) -> str:
    """The output of a program that cannot import the blocked packages."""
    done = python("-c", BLOCKER.format(blocked=blocked) + program)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    found = report.Finding("critical", "nan", "forward", 3, module="encoder", op="aten.log.default")
    return report.Report(4, (found,)).save(tmp_path / "run")


# -- what it needs ----------------------------------------------------------------------------


def test_importing_needs_the_standard_library_alone() -> None:
    without((*NOTEBOOK_PACKAGES, "torch", "numpy"), "import nanhunt; nanhunt.Report(1)")


def test_a_hunt_needs_torch_alone() -> None:
    assert without(NOTEBOOK_PACKAGES, HUNT).strip() == "aten.log.default"


def test_a_saved_report_is_read_and_shown_without_torch(saved: Path) -> None:
    program = f"import nanhunt; print(nanhunt.load_report({str(saved)!r}))"
    assert "aten.log.default" in without((*NOTEBOOK_PACKAGES, "torch", "numpy"), program)


def test_the_blocker_of_these_tests_blocks() -> None:
    done = python("-c", BLOCKER.format(blocked=("IPython",)) + "import IPython")
    assert "(blocked)" in done.stderr


def test_public_names_load_what_they_need_and_no_more() -> None:
    done = python("-c", "import nanhunt, sys; nanhunt.Report; print('torch' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("name", nanhunt.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(nanhunt, name) is not None
    assert name in dir(nanhunt)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'hunter'"):
        nanhunt.hunter  # noqa: B018


def imports() -> dict[str, set[str]]:
    """Which module of the package imports which; the package's own face is left out."""
    graph = grimp.build_graph("nanhunt", exclude_type_checking_imports=True)
    modules = graph.modules - {"nanhunt"}
    return {name: graph.find_modules_directly_imported_by(name) & modules for name in modules}


def test_no_modules_import_each_other_in_a_circle() -> None:
    order = list(graphlib.TopologicalSorter(imports()).static_order())
    assert order.index("nanhunt.errors") < order.index("nanhunt.core.hunting.engine")


def floors(package: str) -> dict[str, int]:
    """How high each part of a package stands above what it imports of the package, from 1."""
    below: dict[str, set[str]] = {}
    for name, imported in imports().items():
        parts = [
            other.removeprefix(package + ".").split(".")[0]
            for other in (name, *imported)
            if other.startswith(package + ".")
        ]
        if name.startswith(package + "."):
            below.setdefault(parts[0], set()).update(set(parts[1:]) - {parts[0]})
    height: dict[str, int] = {}
    for part in graphlib.TopologicalSorter(below).static_order():
        height[part] = 1 + max((height[other] for other in below[part]), default=0)
    return height


@pytest.mark.parametrize(("package", "parts"), [("nanhunt", 16), ("nanhunt.core", 15)])
def test_the_package_has_few_parts_and_floors(package: str, parts: int) -> None:
    height = floors(package)
    assert len(height) <= parts
    assert max(height.values()) <= 12, height


MODULES = [
    module.name
    for module in pkgutil.walk_packages(nanhunt.__path__, "nanhunt.")
    if module.name != "nanhunt.__main__"
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


def test_every_file_of_the_package_is_told_from_the_users_code() -> None:
    kinds = {source_lines.kind_of(str(path)) for path in (ROOT / "nanhunt").rglob("*.py")}
    assert kinds == {"own"}


def own_lists_of_halves(source: str) -> list[int]:
    """Lines where a literal collection names both real dtypes of half precision."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict)
        and {"torch.float16", "torch.bfloat16"}
        <= {ast.unparse(part) for part in parts(node) if part}
    ]


def parts(node: ast.Tuple | ast.List | ast.Set | ast.Dict) -> list[ast.expr | None]:
    return [*node.keys, *node.values] if isinstance(node, ast.Dict) else list(node.elts)


def test_nobody_keeps_an_own_list_of_half_precision() -> None:
    found = {
        str(path.relative_to(ROOT / "nanhunt"))
        for path in (ROOT / "nanhunt").rglob("*.py")
        if own_lists_of_halves(path.read_text(encoding="utf-8"))
    }
    assert found == {
        "core/tensors/dtypes.py",  # the vocabulary
        "core/tensors/binning.py",  # how the bits of each dtype are laid out
        "checkpoints/formats/safetensors.py",  # what a file's header calls each dtype
    }


# Classes of one name that are one thing.
SAME_THING = {
    "GuardCallback": {"integrations.lightning", "integrations.transformers"},  # one per framework
}


def test_no_two_classes_share_a_name() -> None:
    homes: dict[str, set[str]] = {}
    for path in (ROOT / "nanhunt").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT / "nanhunt").with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, set()).add(module)
    assert {name: at for name, at in homes.items() if len(at) > 1} == SAME_THING


# -- what it contains -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(built_wheel: Path) -> Iterator[zipfile.ZipFile]:
    """The wheel, opened."""
    with zipfile.ZipFile(built_wheel) as opened:
        yield opened


def test_the_wheel_holds_the_package_and_the_extension_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    extension = f"nanhunt-{nanhunt.__version__}.data/data/share/jupyter/labextensions/nanhunt/"
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "nanhunt").rglob("*.py")}
    shared = {name.removeprefix(extension) for name in names if name.startswith(extension)}
    assert {name for name in names if not name.startswith(extension)} == sources | {
        "nanhunt/py.typed",
        "nanhunt/panel/controls.json",
    }
    assert {"install.json", "package.json", "static/style.js"} <= shared
    assert [name for name in shared if re.fullmatch(r"static/remoteEntry\.\w+\.js", name)]
    others = {name for name in shared if name.split("/")[0] not in ("static", "schemas")}
    assert others == {"install.json", "package.json"}


def test_the_wheel_names_its_licence_its_version_and_its_command(wheel: zipfile.ZipFile) -> None:
    info = f"nanhunt-{nanhunt.__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: BSD-3-Clause" in metadata
    assert f"Version: {nanhunt.__version__}\n" in metadata
    assert b"nanhunt = nanhunt.cli:main" in wheel.read(f"{info}/entry_points.txt")
    assert f"{info}/licenses/LICENSE" in wheel.namelist()


def test_the_version_is_written_in_one_place() -> None:
    written = re.compile(rf"[\"']{re.escape(nanhunt.__version__)}[\"']")
    files = [ROOT / "pyproject.toml", *(ROOT / "nanhunt").rglob("*.py")]
    places = [file.name for file in files if written.search(file.read_text(encoding="utf-8"))]
    assert places == ["__init__.py"]


# -- the command ------------------------------------------------------------------------------


def test_the_command_prints_a_saved_report(saved: Path) -> None:
    done = python("-m", "nanhunt", "report", str(saved))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{report.load_report(saved)}\n"


def test_the_command_lists_the_causes_and_the_source_of_one() -> None:
    done = nanhunt_command("causes")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 50
    one = nanhunt_command("causes", "where_trap").stdout
    assert "Source:" in one
    wrong = nanhunt_command("causes", "where_trp")
    assert wrong.returncode == 2
    assert "did you mean where_trap?" in wrong.stderr


def test_the_command_writes_a_page_that_stands_alone(saved: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = python("-m", "nanhunt", "report", str(saved), "--html", str(page))
    assert done.returncode == 0, done.stderr
    assert page.read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_a_terminal_without_unicode_still_gets_the_report(saved: Path) -> None:
    done = python("-m", "nanhunt", "report", str(saved), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "aten.log.default" in done.stdout


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        ("not JSON", "not a nanhunt report"),
        ("[]", "not a nanhunt report"),
        (json.dumps({"format": report.Report.FORMAT, "version": 99}), "version 99"),
    ],
)
def test_a_file_that_is_no_report_is_named_in_one_line(
    content: str | None, complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    done = python("-m", "nanhunt", "report", str(file))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("nanhunt: ")
    assert complaint in line
    assert str(file) in line


def test_a_page_that_cannot_be_written_is_named(saved: Path, tmp_path: Path) -> None:
    page = tmp_path / "missing" / "page.html"
    done = python("-m", "nanhunt", "report", str(saved), "--html", str(page))
    assert done.returncode == 2
    assert str(page) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_alone_says_how_it_is_used() -> None:
    done = python("-m", "nanhunt")
    assert done.returncode == 2
    assert "usage: nanhunt" in done.stderr


def test_the_command_tells_its_version() -> None:
    assert python("-m", "nanhunt", "--version").stdout == f"nanhunt {nanhunt.__version__}\n"


# -- the helpers of make ----------------------------------------------------------------------


def test_without_chromium_the_line_to_type_is_printed(tmp_path: Path) -> None:
    done = python(str(ROOT / "tools" / "find_chromium.py"), PATH=str(tmp_path))
    assert done.returncode == 1
    assert "sudo apt-get install chromium" in done.stderr


def test_a_browser_that_does_not_start_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "chromium"
    stub.write_text("#!/bin/sh\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert find_chromium.find() != str(stub)
