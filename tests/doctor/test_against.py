"""A checkpoint beside the model that is to take it: the verdict is that of `load_state_dict`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nanhunt
from nanhunt.checkpoints.judge.against_model import load_model
from nanhunt.errors import UsageError
from nanhunt.records.diagnosis import Match
from tests.doctor import files
from tests.doctor.files import Net


class Tied(nn.Module):
    """An embedding and a head that share their weight."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        if tied:
            self.head.weight = self.embedding.weight


def match(tmp_path: Path, tree: Any, model: nn.Module) -> Match:
    path = files.torch_file(tmp_path / "x.pt", tree)
    found = nanhunt.doctor(path, model).match
    assert found is not None
    return found


def kinds(found: Match) -> dict[str, tuple[str, ...]]:
    return {mismatch.kind: mismatch.keys for mismatch in found.mismatches}


def apply(found: Match, saved: Any) -> Any:
    """Runs the lines of code that are to mend it."""
    space: dict[str, Any] = {"saved": saved, "state": saved}
    for mismatch in found.mismatches:
        if mismatch.fix:
            exec(mismatch.fix, space)
    return space["state"]


@pytest.mark.parametrize("under", [(), ("model",), ("checkpoint", "ema", "state_dict")])
def test_a_state_dict_is_found_wherever_it_stands(under: tuple[str, ...], tmp_path: Path) -> None:
    tree: Any = Net().state_dict()
    for key in reversed(under):
        tree = {key: tree, "epoch": 3}
    found = match(tmp_path, tree, Net())
    assert found.fits
    assert found.mismatches == ()
    assert (found.under, found.keys, found.found) == (".".join(under), 16, 16)
    assert found.file_parameters == found.model_parameters == 214


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "generator.net."])
def test_a_prefix_is_named_with_the_line_that_takes_it_off(prefix: str, tmp_path: Path) -> None:
    saved = {"model": {prefix + name: value for name, value in Net().state_dict().items()}}
    found = match(tmp_path, saved, Net())
    assert not found.fits
    assert set(kinds(found)) == {"prefix"}
    assert found.found == 16
    Net().load_state_dict(apply(found, saved))


def test_a_prefix_that_the_model_has_is_put_before(tmp_path: Path) -> None:
    saved = Net().state_dict()
    wrapped = nn.Module()
    wrapped.module = Net()
    found = match(tmp_path, saved, wrapped)
    assert "prefix" in kinds(found)
    wrapped.load_state_dict(apply(found, dict(saved)))


def test_missing_unexpected_and_reshaped_keys_are_named(tmp_path: Path) -> None:
    state = Net().state_dict()
    del state["head.bias"]
    state["head.extra"] = torch.ones(3)
    state["body.0.weight"] = torch.ones(4, 2, 3, 3)
    found = match(tmp_path, {"model": state}, Net())
    assert kinds(found) == {
        "missing": ("head.bias",),
        "unexpected": ("head.extra",),
        "shape": ("body.0.weight",),
    }
    assert not found.fits
    assert found.found == 14
    assert "[4, 2, 3, 3] in the file and [4, 1, 3, 3] in the model" in found.mismatches[2].text
    with pytest.raises(RuntimeError):
        Net().load_state_dict(state)


def test_another_dtype_is_a_warning_for_loading_casts_it(tmp_path: Path) -> None:
    found = match(tmp_path, Net().half().state_dict(), Net())
    (mismatch,) = found.mismatches
    assert (mismatch.kind, mismatch.severity) == ("dtype", "warning")
    assert found.fits
    assert "float16 in the file and float32 in the model" in mismatch.text


def test_a_tied_weight_is_not_called_missing(tmp_path: Path) -> None:
    """safetensors stores shared values under one name only."""
    state = Tied().state_dict()
    del state["head.weight"]
    found = match(tmp_path, state, Tied())
    assert kinds(found) == {"tied": ("head.weight",)}
    assert found.model_parameters == found.file_parameters == 15
    Tied().load_state_dict(apply(found, dict(state)))


def test_every_name_of_a_weight_that_is_tied_twice_is_put_in(tmp_path: Path) -> None:
    model = Tied()
    model.second = model.head
    state = model.state_dict()
    del state["head.weight"], state["second.weight"]
    found = match(tmp_path, state, model)
    assert kinds(found) == {"tied": ("head.weight", "second.weight")}
    model.load_state_dict(apply(found, dict(state)))


def test_a_weight_tied_in_the_model_alone_is_pointed_out(tmp_path: Path) -> None:
    found = match(tmp_path, Tied(tied=False).state_dict(), Tied())
    assert set(kinds(found)) == {"tied"}
    assert (found.model_parameters, found.file_parameters) == (15, 30)
    assert match(tmp_path, Tied().state_dict(), Tied()).mismatches == ()


def test_a_model_twice_as_large_is_told_by_its_parameters(tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    found = match(tmp_path, nn.Sequential(nn.Linear(4, 8)).state_dict(), wide)
    assert (found.model_parameters, found.file_parameters) == (76, 40)
    assert "40 parameters in the file, 76 in the model" in str(
        nanhunt.doctor(tmp_path / "x.pt", wide)
    )


def test_a_file_of_another_model_does_not_fit_and_does_not_crash(tmp_path: Path) -> None:
    for tree in ({}, {"a": torch.ones(1)}, torch.ones(3), [torch.ones(2)] * 2):
        found = match(tmp_path, tree, Net())
        assert not found.fits
        assert found.found == 0


def test_optimizer_state_is_not_taken_for_the_model(tmp_path: Path) -> None:
    found = match(tmp_path, files.whole(), Net())
    assert found.mismatches == ()
    assert found.under == "model"
    beside = match(tmp_path, {**Net().state_dict(), "optimizer": files.whole()["optimizer"]}, Net())
    assert set(kinds(beside)) == {"unexpected"}, "load_state_dict does not take it either"


def test_an_unhealthy_file_that_fits_is_told_as_both(tmp_path: Path) -> None:
    state = Net().state_dict()
    state["body.1.running_var"][0] = math.inf
    del state["head.bias"]
    found = nanhunt.doctor(files.torch_file(tmp_path / "x.pt", state), Net(), fix=True)
    assert "1 buffer (repairable), and it does not fit Net" in str(found)
    assert found.repair is not None
    assert found.repair.left == ("does not fit Net",)
    assert not found.mended


def test_the_model_may_be_what_holds_one(tmp_path: Path) -> None:
    class Run:
        model = Net()

    path = files.torch_file(tmp_path / "x.pt", Net().state_dict())
    assert nanhunt.doctor(path, Run()).match is not None  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="this is a int"):
        nanhunt.doctor(path, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("model.py", "FILE.py:FUNCTION"),
        ("nothing.py:build", "FILE.py:FUNCTION"),
        ("model.py:bild", "has no bild"),
        ("model.py:number", "this is a int"),
        ("model.txt:build", "is no Python file"),
    ],
)
def test_a_model_that_cannot_be_built_is_said_to(
    spec: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.py").write_text("number = 3\n")
    (tmp_path / "model.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=complaint):
        load_model(spec)


MODEL = """
from __future__ import annotations
import dataclasses
from torch import nn

@dataclasses.dataclass
class Config:
    size: int = 2

def build():
    import layers_beside_it
    return layers_beside_it.make(Config().size)
"""


def test_the_file_may_hold_dataclasses_and_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    beside = "from torch import nn\ndef make(size):\n    return nn.Linear(size, size)\n"
    (tmp_path / "layers_beside_it.py").write_text(beside)
    before = list(sys.path)
    assert load_model(f"{tmp_path / 'model.py'}:build").in_features == 2
    assert sys.path == before
    assert "model" not in sys.modules
