"""A folder of checkpoints: the last healthy and the first bad one, in as few reads as can be."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import nanhunt
from nanhunt.checkpoints.formats import opening
from nanhunt.errors import CheckpointError, UsageError
from tests.doctor import files

HEALTHY = {"w": torch.ones(4)}
BAD = {"w": torch.tensor([1.0, math.nan, 1.0, 1.0])}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of all files and folders that the doctor opens as a checkpoint."""
    opened: list[str] = []
    read = opening.read

    def counted(path: Path) -> Any:
        opened.append(path.name)
        return read(path)

    monkeypatch.setattr(opening, "read", counted)
    return opened


def series(folder: Path, first_bad: int, length: int = 64) -> Path:
    for number in range(length):
        tree = BAD if number >= first_bad else HEALTHY
        files.torch_file(folder / f"step_{(number + 1) * 500}.pt", tree)
    return folder


@pytest.mark.parametrize("first_bad", range(65))
def test_the_first_bad_of_64_is_found_in_at_most_7_reads(
    first_bad: int, reads: list[str], tmp_path: Path
) -> None:
    found = nanhunt.doctor(series(tmp_path, first_bad))
    names = [f"step_{(number + 1) * 500}.pt" for number in range(64)]
    assert found.timeline is not None
    assert found.timeline.first_bad == (names[first_bad] if first_bad < 64 else "")
    assert found.timeline.last_healthy == (names[first_bad - 1] if first_bad else "")
    assert len(reads) == len(found.timeline.looks) <= 7
    assert found.healthy == (first_bad == 64)
    assert (found.timeline.length, found.timeline.order) == (64, "the numbers in the names")
    assert {look.name for look in found.timeline.looks} == set(reads)


def test_a_healthy_series_needs_one_read(reads: list[str], tmp_path: Path) -> None:
    found = nanhunt.doctor(series(tmp_path, 99, length=20))
    assert reads == ["step_10000.pt"]
    assert found.healthy
    assert "Healthy series" in str(found)


def test_the_problems_told_are_those_of_the_first_bad_one(tmp_path: Path) -> None:
    found = nanhunt.doctor(series(tmp_path, 11, length=20))
    assert found.path == str(tmp_path / "step_6000.pt")
    assert [problem.kind for problem in found.problems] == ["not_finite"]
    text = str(found)
    assert text.startswith("✗ Bad from step_6000.pt on: 1 weight")
    assert "step_5500.pt" in text


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    series(tmp_path, 6, length=10)
    for number in (10, 8, 6):  # the newest was being written when the run was killed
        path = tmp_path / f"step_{number * 500}.pt"
        path.write_bytes(path.read_bytes()[:50])
    timeline = nanhunt.doctor(tmp_path).timeline
    assert timeline is not None
    assert (timeline.last_healthy, timeline.first_bad) == ("step_2500.pt", "step_3500.pt")
    unread = [look for look in timeline.looks if look.healthy is None]
    assert unread
    assert all("truncated" in look.text for look in unread)


def test_a_healthy_series_whose_newest_file_is_cut_off_is_told_with_that(tmp_path: Path) -> None:
    series(tmp_path, 99, length=4)
    newest = tmp_path / "step_2000.pt"
    newest.write_bytes(newest.read_bytes()[:50])
    text = " ".join(str(nanhunt.doctor(tmp_path)).split())
    assert text.startswith("△ Healthy series: ")
    assert "but step_2000.pt could not be read" in text


def test_a_series_of_which_nothing_can_be_read_is_not_healthy(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"step_{number}.pt").write_bytes(b"")
    found = nanhunt.doctor(tmp_path)
    assert not found.mended
    assert str(found).startswith("✗ None of 3 checkpoints could be read")


def test_without_numbers_that_tell_them_apart_the_clock_decides(tmp_path: Path) -> None:
    names = ["step_1.pt", "step_01.pt", "step_001.pt"]
    for number, name in enumerate(names):
        path = files.torch_file(tmp_path / name, BAD if number else HEALTHY)
        os.utime(path, (1e9 + number, 1e9 + number))
    timeline = nanhunt.doctor(tmp_path).timeline
    assert timeline is not None
    assert timeline.order == "the time of their last change"
    assert (timeline.last_healthy, timeline.first_bad) == ("step_1.pt", "step_01.pt")


def test_epochs_and_steps_are_numbers_and_not_words(tmp_path: Path) -> None:
    for number in range(8, 13):
        tree = BAD if number >= 10 else HEALTHY
        files.torch_file(tmp_path / f"epoch={number}-step={number * 7}.ckpt", tree)
    files.torch_file(tmp_path / "last.ckpt", BAD)
    found = nanhunt.doctor(tmp_path)
    assert found.timeline is not None
    assert found.timeline.first_bad == "epoch=10-step=70.ckpt"
    assert found.notes == ("not part of the series: last.ckpt",)


def test_a_series_of_folders_is_one_too(tmp_path: Path) -> None:
    tree = files.whole()
    for number in range(1, 5):
        folder = files.sharded(tmp_path / f"checkpoint-{number}00", tree["model"])
        second = torch.full((3,), -1.0 if number > 2 else 1.0)
        optimizer = {"state": {0: {"exp_avg_sq": second}}, "param_groups": [{"lr": 0.1}]}
        files.torch_file(folder / "optimizer.pt", optimizer)
    found = nanhunt.doctor(tmp_path)
    assert found.timeline is not None
    assert (found.timeline.last_healthy, found.timeline.first_bad) == (
        "checkpoint-200",
        "checkpoint-300",
    )
    (problem,) = found.problems
    assert (problem.kind, problem.file) == ("second_moment_negative", "optimizer.pt")


def test_shards_and_repaired_copies_are_no_series(tmp_path: Path) -> None:
    folder = files.sharded(tmp_path / "hf", files.whole()["model"], shards=4)
    assert nanhunt.doctor(folder).timeline is None
    (folder / "model.safetensors.index.json").unlink()
    assert nanhunt.doctor(folder).timeline is None
    series(tmp_path / "run", 1, length=2)
    files.torch_file(tmp_path / "run" / "step_9999_FIXED.pt", HEALTHY)
    timeline = nanhunt.doctor(tmp_path / "run").timeline
    assert timeline is not None
    assert (timeline.length, timeline.first_bad) == (2, "step_1000.pt")


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / f"checkpoint-{number}"
        files.torch_file(folder / "model.pt", HEALTHY)
        (folder / f"again-{number}").symlink_to(tmp_path)
        (tmp_path / f"loop-{number}").symlink_to(tmp_path / f"loop-{number}")
    timeline = nanhunt.doctor(tmp_path).timeline
    assert timeline is not None
    assert timeline.last_healthy == "checkpoint-2"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="neither a file nor a folder"):
        nanhunt.doctor(tmp_path / "x.pt")


def test_a_repair_names_the_file_that_it_wants(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the one to repair"):
        nanhunt.doctor(series(tmp_path, 1, length=2), fix=True)


def test_a_folder_without_checkpoints_says_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"no checkpoint in this folder.*\.safetensors"):
        nanhunt.doctor(tmp_path)


@pytest.mark.parametrize(
    "part",
    [
        "rng_state_{}.pth",
        "random_states_{}.pt",
        "zero_pp_rank_{}_mp_rank_00_optim_states.pt",
        "model_world_size_2_rank_{}.pt",
    ],
)
def test_what_each_process_writes_for_itself_is_no_series(part: str, tmp_path: Path) -> None:
    """Otherwise bad weights beside such files would never be looked at."""
    for step, value in ((500, 1.0), (1000, math.nan)):
        folder = tmp_path / f"checkpoint-{step}"
        files.safetensors_file(folder / "model.safetensors", {"w": torch.full((2, 2), value)})
        for rank in range(3):
            files.torch_file(folder / part.format(rank), {"seed": rank})
    one = nanhunt.doctor(tmp_path / "checkpoint-1000")
    assert one.timeline is None
    assert [problem.key for problem in one.problems] == ["w"]
    whole = nanhunt.doctor(tmp_path)
    assert whole.timeline is not None
    assert whole.timeline.first_bad == "checkpoint-1000"


def test_a_rank_beside_the_number_of_a_step_does_not_hide_the_series(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        files.torch_file(tmp_path / f"lora_rank8_step{step}.pt", {"w": torch.ones(2)})
    timeline = nanhunt.doctor(tmp_path).timeline
    assert timeline is not None
    assert timeline.length == 3
