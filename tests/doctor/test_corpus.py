"""A corpus of files that strangers might send: a verdict or a refusal, and nothing else happens."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

import nanhunt
from nanhunt.errors import CheckpointError
from tests.doctor import damaged_files, files
from tests.doctor.damaged import CANARY, CORPUS, HOSTILE

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of making quantized tensors


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a hostile file writes if anything of it is executed."""
    path = tmp_path / "canary"
    monkeypatch.setenv(CANARY, str(path))
    return path


def test_the_corpus_is_large_and_the_canary_sings(canary: Path) -> None:
    assert len(CORPUS) >= 60
    assert "sharded" in CORPUS, damaged_files.__doc__
    file = files.torch_file(canary.parent / "x.pt", {"x": HOSTILE["system"]()})
    torch.load(file, weights_only=False)
    assert canary.exists(), "a file that is executed has to be noticed"


@pytest.mark.parametrize("name", CORPUS)
def test_the_verdict_is_right_nothing_is_executed_and_no_byte_changes(
    name: str, canary: Path, tmp_path: Path
) -> None:
    make, expected = CORPUS[name]
    path = make(tmp_path / "files")
    before = files.everything_in(path.parent)
    verdict, _, rest = expected.partition(" ")
    if verdict == "refused":
        with pytest.raises(CheckpointError) as caught:
            nanhunt.doctor(path)
        assert rest in str(caught.value)
        assert str(path.name) in str(caught.value)
        assert len(str(caught.value)) < 1000
    else:
        check(nanhunt.doctor(path), verdict, rest)
    assert files.everything_in(path.parent) == before
    assert not canary.exists()


def check(found: nanhunt.Diagnosis, verdict: str, rest: str) -> None:
    assert found.healthy == (verdict != "bad"), str(found)
    kind, _, key = rest.partition(" ")
    if verdict == "bad":
        critical = [p for p in found.problems if p.severity == "critical"]
        assert any(p.kind == kind and p.key.endswith(key) for p in critical), str(found)
    elif verdict == "odd":
        assert kind in {problem.kind for problem in found.problems}
    else:
        assert [p for p in found.problems if p.severity != "info"] == []
    assert str(found)
    assert nanhunt.Diagnosis.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("name", [n for n, (_, expected) in CORPUS.items() if "bad" in expected])
def test_a_repair_leaves_the_original_and_tells_what_is_left(
    name: str, canary: Path, tmp_path: Path
) -> None:
    path = CORPUS[name][0](tmp_path / "files")
    before = files.everything_in(path.parent)
    repair = nanhunt.doctor(path, fix=True).repair
    assert repair is not None
    after = files.everything_in(path.parent)
    assert {name: after[name] for name in before} == before
    assert all("_FIXED" in name for name in after if name not in before)
    if repair.path:
        again = nanhunt.doctor(repair.path)
        assert bool(repair.left) != again.healthy
        assert {p.key or p.file or p.text for p in again.problems if p.severity == "critical"} == (
            set(repair.left)
        )
    else:
        assert repair.left
    assert not canary.exists()


def test_what_is_nested_too_deep_is_said_to_be_left_out(tmp_path: Path) -> None:
    found = nanhunt.doctor(CORPUS["deeply_nested"][0](tmp_path))
    assert found.tensors == 1
    assert any("nested deeper than 100 levels" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["x.pt", "legacy.pt", "x.safetensors"])
def test_random_damage_ends_in_a_verdict_or_a_refusal(kind: str, tmp_path: Path) -> None:
    tree = files.whole()
    if kind == "x.safetensors":
        content = files.safetensors_bytes(tree["model"])
    else:
        file = files.torch_file(tmp_path / "source", tree, legacy=kind == "legacy.pt")
        content = file.read_bytes()
    dice = random.Random(0)
    verdicts = {"refused": 0, "bad": 0, "healthy": 0}
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(dice.choice([1, 1, 3, 30])):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        if dice.random() < 0.2:
            del damaged[dice.randrange(len(damaged)) :]
        path = tmp_path / kind
        path.write_bytes(damaged)
        try:
            found = nanhunt.doctor(path)
        except CheckpointError:
            verdicts["refused"] += 1
        else:
            verdicts["healthy" if found.healthy else "bad"] += 1
    assert verdicts["refused"] > 50, verdicts
    if kind == "x.pt":  # the only format with checksums
        assert verdicts["bad"] > 20, verdicts
