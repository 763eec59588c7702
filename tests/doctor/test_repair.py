"""A repaired copy: what is bad is reset, and everything else keeps its bits."""

from __future__ import annotations

import math
import os
import stat
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import nanhunt
from nanhunt.checkpoints.formats import opening
from nanhunt.checkpoints.judge import scan
from nanhunt.checkpoints.repair import writing
from nanhunt.errors import CheckpointError, UsageError
from tests.doctor import files
from tests.doctor.damaged import channels_last, poisoned

INF, NAN = math.inf, math.nan
MOMENTS = ("exp_avg", "exp_avg_sq")


def fixed(path: Path, **options: Any) -> tuple[Path, nanhunt.Diagnosis]:
    diagnosis = nanhunt.doctor(path, fix=True, **options)
    assert diagnosis.repair is not None
    return Path(diagnosis.repair.path), diagnosis


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def leaves(tree: Any) -> dict[str, Any]:
    from nanhunt.checkpoints.formats.contents import leaves as walk

    return {".".join(keys): value for keys, value in walk(tree)}


def differing(before: Any, after: Any) -> set[str]:
    """Names of what is not the same, to the bit."""
    first, second = leaves(before), leaves(after)
    assert list(first) == list(second)
    return {
        name
        for name, value in first.items()
        if (
            files.raw_bytes(value) != files.raw_bytes(second[name])
            if isinstance(value, torch.Tensor)
            else repr(value) != repr(second[name])
        )
    }


def test_bad_channels_get_mean_0_and_variance_1_and_the_others_keep_theirs(
    tmp_path: Path,
) -> None:
    tree = poisoned("model", "body.1.running_mean", 2, INF)
    tree["model"]["body.1.running_var"][0] = -1.0
    path = files.torch_file(tmp_path / "x.pt", tree)
    copy, diagnosis = fixed(path)
    assert copy == tmp_path / "x_FIXED.pt"
    after = load(copy)
    assert differing(tree, after) == {"model.body.1.running_mean", "model.body.1.running_var"}
    mean, variance = (after["model"][f"body.1.running_{n}"] for n in ("mean", "var"))
    assert mean[[0, 2]].tolist() == [0.0, 0.0]
    assert variance[[0, 2]].tolist() == [1.0, 1.0]
    assert torch.equal(mean[[1, 3]], tree["model"]["body.1.running_mean"][[1, 3]])
    assert torch.equal(variance[[1, 3]], tree["model"]["body.1.running_var"][[1, 3]])
    assert diagnosis.mended
    assert {c.entries for c in diagnosis.repair.changes} == {2}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_statistics_of_any_dtype_are_reset(dtype: torch.dtype, tmp_path: Path) -> None:
    state = torch.nn.BatchNorm1d(3).to(dtype).state_dict()
    state["running_var"][1] = NAN
    copy, _ = fixed(files.torch_file(tmp_path / "x.pt", state))
    assert load(copy)["running_var"].tolist() == [1.0, 1.0, 1.0]


def test_complex_statistics_beside_real_ones_are_reset_too(tmp_path: Path) -> None:
    tree = {
        "running_mean": torch.tensor([1 + 1j, complex(INF, 2)]),
        "running_var": torch.tensor([NAN, 2.0]),
    }
    copy, diagnosis = fixed(files.torch_file(tmp_path / "x.pt", tree))
    assert diagnosis.mended
    assert load(copy)["running_mean"].tolist() == [1 + 1j, 2j]
    assert load(copy)["running_var"].tolist() == [1.0, 2.0]


def test_shards_of_one_tensor_are_not_taken_for_one_another(tmp_path: Path) -> None:
    """As a sharded optimizer of torch.distributed is named."""
    bad = torch.tensor([1.0, -1.0])
    state = {f"0.{name}@{at}": torch.ones(2) for name in MOMENTS for at in ("0", "2")}
    path = files.safetensors_file(tmp_path / "x.safetensors", {**state, "0.exp_avg_sq@2": bad})
    copy, _ = fixed(path)
    again = opening.read(copy).entries
    sums = {entry.key: float(scan.read_values(entry).sum()) for entry in again}
    assert sums == {
        "0.exp_avg@0": 2.0,
        "0.exp_avg@2": 1.0,
        "0.exp_avg_sq@0": 2.0,
        "0.exp_avg_sq@2": 1.0,
    }


def test_bad_moments_start_anew_together_with_those_beside_them(tmp_path: Path) -> None:
    tree = poisoned("optimizer", "state", 0, "exp_avg_sq", 3, INF)
    state = tree["optimizer"]["state"][0]
    state["exp_avg_sq"].view(-1)[5] = -1e-12
    copy, _ = fixed(files.torch_file(tmp_path / "x.pt", tree))
    after = load(copy)["optimizer"]["state"][0]
    for name in ("exp_avg", "exp_avg_sq"):
        flat, old = after[name].view(-1), state[name].view(-1)
        assert flat[[3, 5]].tolist() == [0.0, 0.0]
        healthy = [n for n in range(flat.numel()) if n not in (3, 5)]
        assert torch.equal(flat[healthy], old[healthy])
    assert after["step"] == state["step"]


def test_with_a_bad_count_of_updates_the_parameter_starts_anew(tmp_path: Path) -> None:
    tree = poisoned("optimizer", "state", 1, "step", 0, NAN)
    copy, _ = fixed(files.torch_file(tmp_path / "x.pt", tree))
    after = load(copy)
    assert all(not value.any() for value in after["optimizer"]["state"][1].values())
    assert differing(tree, after) == {
        f"optimizer.state.1.{name}" for name in ("step", "exp_avg", "exp_avg_sq")
    }
    net, optimizer = files.trained()
    optimizer.load_state_dict(after["optimizer"])
    net(torch.randn(8, 1, 5, 5)).sum().backward()
    optimizer.step()
    assert all(torch.isfinite(p).all() for p in net.parameters())


@pytest.mark.parametrize("scale", [0.0, INF, NAN, -1.0, 1e-40])
def test_a_scale_that_a_scaler_cannot_leave_is_reset(scale: float, tmp_path: Path) -> None:
    tree = poisoned("scaler", "scale", None, scale)
    tree["generator"] = {"scaler": {**files.SCALER, "scale": 512.0}, "image": {"scale": 0.0}}
    copy, diagnosis = fixed(files.torch_file(tmp_path / "x.pt", tree))
    assert differing(tree, load(copy)) == {"scaler.scale"}
    assert load(copy)["scaler"] == files.SCALER
    assert diagnosis.mended


@pytest.mark.parametrize(
    "other", [2, 300, -70_000, 2**40, 10**400, True, None, 0.5], ids=lambda value: str(value)[:8]
)
def test_a_scale_of_something_else_does_not_hinder_it(other: Any, tmp_path: Path) -> None:
    tree = {"augment": {"scale": other}, "scaler": {**files.SCALER, "scale": 0.0}, "scale": other}
    target, found = fixed(files.torch_file(tmp_path / "x.pt", tree))
    assert load(target) == {**tree, "scaler": {**files.SCALER, "scale": 65536.0}}
    assert found.mended


def test_files_in_the_old_format_are_examined_and_not_repaired(tmp_path: Path) -> None:
    tree = poisoned("scaler", "scale", None, INF)
    tree["model"]["body.1.running_var"][3] = NAN
    path = files.torch_file(tmp_path / "x.pth", tree, legacy=True)
    diagnosis = nanhunt.doctor(path, fix=True)
    assert {p.key for p in diagnosis.problems} == {"scaler.scale", "model.body.1.running_var"}
    assert diagnosis.repair.path == ""
    assert not diagnosis.mended
    assert any("save it anew with torch.save" in note for note in diagnosis.notes)
    assert os.listdir(tmp_path) == ["x.pth"]


def test_weights_stay_as_they_are_unless_that_is_asked_for(tmp_path: Path) -> None:
    tree = poisoned("model", "head.weight", 3, NAN)
    path = files.torch_file(tmp_path / "x.pt", tree)
    diagnosis = nanhunt.doctor(path, fix=True)
    assert (diagnosis.repair.path, diagnosis.repair.left) == ("", ("model.head.weight",))
    assert not diagnosis.mended
    assert os.listdir(tmp_path) == ["x.pt"]
    copy, diagnosis = fixed(path, fix_weights=True)
    assert diagnosis.mended
    assert load(copy)["model"]["head.weight"].view(-1)[3] == 0
    assert differing(tree, load(copy)) == {"model.head.weight"}


def test_a_mask_is_left_alone_even_then(tmp_path: Path) -> None:
    tree = {"mask": torch.full((3, 3), -INF).triu(1), "w": torch.tensor([NAN])}
    copy, _ = fixed(files.torch_file(tmp_path / "x.pt", tree), fix_weights=True)
    assert differing(tree, load(copy)) == {"w"}


def test_elements_are_found_in_any_memory_layout(tmp_path: Path) -> None:
    tree = channels_last()
    copy, _ = fixed(files.torch_file(tmp_path / "x.pt", tree), fix_weights=True)
    after = load(copy)["w"]
    assert after.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(after, tree["w"].nan_to_num(0))


@pytest.mark.parametrize("kind", ["pt", "safetensors", "sharded", "dcp"])
def test_everything_outside_the_changes_is_the_same_byte_for_byte(
    kind: str, tmp_path: Path
) -> None:
    tree = poisoned("model", "body.4.running_var", 1, INF)
    path = {
        "pt": lambda: files.torch_file(tmp_path / "x.pt", tree),
        "safetensors": lambda: files.safetensors_file(
            tmp_path / "x.safetensors", tree["model"], metadata={"step": "12", "é": "ü"}
        ),
        "sharded": lambda: files.sharded(tmp_path / "x", tree["model"]),
        "dcp": lambda: files.distributed(tmp_path / "x", tree),
    }[kind]()
    copy, diagnosis = fixed(path)
    assert diagnosis.mended
    assert copy.name == f"x_FIXED{path.suffix}"
    before = list(files.everything_in(path).values())
    after = list(files.everything_in(copy).values())
    assert [len(b) for b in before] == [len(a) for a in after]
    different = sum(
        x != y for b, a in zip(before, after, strict=True) for x, y in zip(b, a, strict=True)
    )
    # Two floats; in a zip archive each has two checksums of four bytes.
    assert 0 < different <= (8 + 16 if kind in ("pt", "dcp") else 8)


def test_the_reference_implementation_reads_the_repaired_safetensors(tmp_path: Path) -> None:
    state = poisoned("model", "body.4.running_var", 1, INF)["model"]
    save_file(state, tmp_path / "x.safetensors", metadata={"format": "pt"})
    copy, diagnosis = fixed(tmp_path / "x.safetensors")
    assert diagnosis.mended
    with safe_open(copy, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
        after = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    state["body.4.running_mean"][1], state["body.4.running_var"][1] = 0.0, 1.0
    assert {n: files.raw_bytes(v) for n, v in after.items()} == {
        n: files.raw_bytes(v) for n, v in state.items()
    }


def test_the_archive_passes_the_test_of_any_zip_program(tmp_path: Path) -> None:
    copy, _ = fixed(files.torch_file(tmp_path / "x.pt", poisoned("scaler", "scale", None, INF)))
    with zipfile.ZipFile(copy) as archive:
        assert archive.testzip() is None


def test_thousands_of_changes_take_seconds(tmp_path: Path) -> None:
    state = {f"{n}.running_mean": torch.tensor([INF]) for n in range(5000)}
    started = time.monotonic()
    copy, diagnosis = fixed(files.torch_file(tmp_path / "x.pt", state))
    assert diagnosis.mended
    assert len(diagnosis.repair.changes) == 5000
    assert "and 4,997 more" in str(diagnosis)
    assert len(diagnosis.to_html()) < 300_000
    assert time.monotonic() - started < 60  # four seconds when nothing else runs
    with zipfile.ZipFile(copy) as archive:
        assert archive.testzip() is None


def test_a_wrong_checksum_is_not_papered_over(tmp_path: Path) -> None:
    tree = poisoned("model", "body.4.running_var", 1, INF)
    path = files.torch_file(tmp_path / "x.pt", tree)
    content = path.read_bytes()
    mean = files.raw_bytes(tree["model"]["body.4.running_var"])
    place = content.index(mean)
    path.write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    _, diagnosis = fixed(path)
    assert "model.body.4.running_var" in diagnosis.repair.left
    assert not diagnosis.mended


def test_nothing_is_ever_written_over(tmp_path: Path) -> None:
    path = files.torch_file(tmp_path / "x.pt", poisoned("scaler", "scale", None, 0.0))
    (tmp_path / "x_FIXED.pt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is there already"):
        nanhunt.doctor(path, fix=True)
    assert sorted(os.listdir(tmp_path)) == ["x.pt", "x_FIXED.pt"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_written_over(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files.torch_file(tmp_path / "x.pt", poisoned("scaler", "scale", None, 0.0))
    publish = writing._publish

    def late(draft: Path, target: Path) -> None:
        target.write_text("somebody else's")
        publish(draft, target)

    monkeypatch.setattr(writing, "_publish", late)
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    with pytest.raises(UsageError, match="meanwhile"):
        nanhunt.doctor(path, fix=True)
    assert (tmp_path / "x_FIXED.pt").read_text() == "somebody else's"
    assert sorted(os.listdir(tmp_path)) == ["x.pt", "x_FIXED.pt"]


def _no_links(*_: Any) -> None:
    raise OSError("no hard links here")


def test_without_hard_links_the_copy_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    copy, _ = fixed(files.torch_file(tmp_path / "x.pt", poisoned("scaler", "scale", None, 0.0)))
    assert nanhunt.doctor(copy).healthy
    assert len(os.listdir(tmp_path)) == 2


def test_a_copy_that_is_not_what_it_should_be_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files.torch_file(tmp_path / "x.pt", poisoned("scaler", "scale", None, 0.0))
    change = writing._change

    def clumsy(stream: Any, patches: Any) -> Any:
        stream.seek(2000)
        stream.write(b"oops")
        return change(stream, patches)

    monkeypatch.setattr(writing, "_change", clumsy)
    with pytest.raises(CheckpointError, match="differs"):
        nanhunt.doctor(path, fix=True)
    assert os.listdir(tmp_path) == ["x.pt"]


def test_the_copy_has_the_permissions_of_the_original(tmp_path: Path) -> None:
    path = files.torch_file(tmp_path / "x.pt", poisoned("scaler", "scale", None, 0.0))
    path.chmod(0o640)
    copy, _ = fixed(path)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o640


def test_tied_tensors_stay_tied(tmp_path: Path) -> None:
    weight = torch.tensor([1.0, NAN])
    copy, _ = fixed(
        files.torch_file(tmp_path / "x.pt", {"a": weight, "b": weight}), fix_weights=True
    )
    after = load(copy)
    assert after["a"].data_ptr() == after["b"].data_ptr()
    assert after["a"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("way", [".", "..", "below/.."])
def test_a_folder_without_a_name_of_its_own_is_copied_beside_itself(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    (folder / "below").mkdir(parents=True)
    statistics = {"n.running_mean": torch.tensor([1.0, NAN]), "n.running_var": torch.ones(2)}
    files.safetensors_file(folder / "model.safetensors", statistics)
    monkeypatch.chdir(folder / "below" if way == ".." else folder)
    repair = nanhunt.doctor(way, fix=True).repair
    assert repair is not None
    assert Path(repair.path) == tmp_path / "run_FIXED"
    assert not repair.left


def test_changes_are_told_of_what_was_changed_alone(tmp_path: Path) -> None:
    """Two files of a folder hold the same names, and one of them is healthy."""
    files.safetensors_file(tmp_path / "x" / "model.safetensors", {"w": torch.ones(2)})
    files.torch_file(tmp_path / "x" / "pytorch_model.bin", {"w": torch.tensor([1.0, NAN])})
    repair = nanhunt.doctor(tmp_path / "x", fix=True, fix_weights=True).repair
    assert repair is not None
    assert [(change.key, change.entries) for change in repair.changes] == [("w", 1)]


def test_a_healthy_file_is_not_copied(tmp_path: Path) -> None:
    path = files.torch_file(tmp_path / "x.pt", files.whole())
    diagnosis = nanhunt.doctor(path, fix=True)
    assert diagnosis.repair.path == ""
    assert diagnosis.mended
    assert os.listdir(tmp_path) == ["x.pt"]


@pytest.mark.parametrize(
    "options", [{"fix_weights": True}, {"data": []}, {"fix": True, "data": []}]
)
def test_options_that_make_no_sense_are_said_to(options: Any, tmp_path: Path) -> None:
    path = files.torch_file(tmp_path / "x.pt", files.whole())
    with pytest.raises(UsageError, match=r"fix=True|needs the model"):
        nanhunt.doctor(path, **options)
