"""A corpus of files that strangers might send: a verdict or a refusal, and nothing else happens."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

import nanhunt
from nanhunt.checkpoints.formats import distributed
from nanhunt.errors import CheckpointError
from tests.doctor import damaged_files, files
from tests.doctor.damaged import CANARY, CORPUS, HOSTILE, poisoned

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


@pytest.mark.parametrize("kind", ["x.pt", "legacy.pt", "x.safetensors", "dcp"])
def test_random_damage_ends_in_a_verdict_or_a_refusal(kind: str, tmp_path: Path) -> None:
    """The checkpoint needs a repair, so that damage falls into that as well."""
    source = poisoned_everywhere(kind, tmp_path / "source")
    dice = random.Random(0)
    verdicts = {"refused": 0, "mended": 0, "bad": 0}
    rounds = 60 if kind == "dcp" else 200
    for number in range(rounds):
        path = tmp_path / str(number) / kind
        path.parent.mkdir()
        shutil.copytree(source, path) if source.is_dir() else shutil.copy(source, path)
        victim = dice.choice(sorted(path.iterdir())) if path.is_dir() else path
        victim.write_bytes(damage(victim.read_bytes(), dice))
        before = files.everything_in(path)
        try:
            found = nanhunt.doctor(path, files.Net(), fix=True)
        except CheckpointError:
            verdicts["refused"] += 1
        else:
            verdicts["mended" if found.mended else "bad"] += 1
        assert files.everything_in(path) == before
        shutil.rmtree(path.parent)
    assert verdicts["refused"] > rounds // 8, verdicts
    if kind in ("x.pt", "dcp"):  # safetensors has no structure to damage beside its header
        assert verdicts["mended"] > rounds // 20, verdicts
    if kind in ("x.pt", "dcp"):  # the only formats with checksums
        assert verdicts["bad"] > rounds // 20, verdicts


def poisoned_everywhere(kind: str, path: Path) -> Path:
    tree = poisoned("scaler", "scale", None, 0.0)
    tree["model"]["body.1.running_mean"][0] = float("inf")
    tree["optimizer"]["state"][0]["step"].fill_(-1)
    if kind == "x.safetensors":
        return files.safetensors_file(path, tree["model"])
    if kind == "dcp":
        return files.distributed(path, tree)
    return files.torch_file(path, tree, legacy=kind == "legacy.pt")


def damage(content: bytes, dice: random.Random) -> bytes:
    """Some bytes changed, sometimes the end cut off."""
    damaged = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 5])):
        damaged[dice.randrange(len(damaged))] = dice.choice([0, 255, dice.randrange(256)])
    if dice.random() < 0.1:
        del damaged[dice.randrange(len(damaged)) :]
    return bytes(damaged)


def test_a_missing_shard_is_named_whatever_else_is_in_its_name(tmp_path: Path) -> None:
    files.safetensors_file(tmp_path / "{x}-00001-of-00002.safetensors", {"w": torch.ones(2)})
    (found,) = nanhunt.doctor(tmp_path).problems
    assert (found.kind, found.file) == ("file_missing", "{x}-00002-of-00002.safetensors")


def test_an_index_is_not_checked_by_assertions_alone(tmp_path: Path) -> None:
    """`python -O` leaves them out."""
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"w": 3}}')
    code = f"import nanhunt; nanhunt.doctor({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    assert "CheckpointError" in done.stderr


def test_a_tar_archive_is_told_from_a_damaged_file(tmp_path: Path) -> None:
    inside = files.safetensors_file(tmp_path / "model.safetensors", {"w": torch.ones(2)})
    with tarfile.open(tmp_path / "model.pth.tar", "w") as archive:
        archive.add(inside, "model.safetensors")
    with pytest.raises(CheckpointError, match=r"a tar archive; unpack it first"):
        nanhunt.doctor(tmp_path / "model.pth.tar")


def test_an_index_cannot_change_what_the_next_one_is_read_with(tmp_path: Path) -> None:
    """The opcode BUILD sets attributes: here the default of the argument of whatever is Size."""
    name = b"X\x0c\x00\x00\x00__defaults__"
    (tmp_path / ".metadata").write_bytes(b"\x80\x02ctorch\nSize\nN}" + name + b"K\x07\x85s\x86b.")
    with pytest.raises(CheckpointError, match="the index is damaged"):
        nanhunt.doctor(tmp_path)
    for known in distributed._KNOWN.values():
        assert isinstance(known, type)
