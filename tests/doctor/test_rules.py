"""What the doctor says of single tensors and numbers, and what it keeps to itself."""

from __future__ import annotations

import math
import re
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nanhunt
from nanhunt.checkpoints.formats import opening
from nanhunt.checkpoints.formats.contents import Entry, Span, ZipMember, extent, row_major
from nanhunt.checkpoints.judge.rules import RULES
from nanhunt.checkpoints.judge.scan import PIECE, checksums_of, index_of, scan_all
from nanhunt.errors import CheckpointError
from nanhunt.records.diagnosis import Problem
from tests.doctor import files
from tests.doctor.damaged import poisoned

INF, NAN = math.inf, math.nan


def problems(tmp_path: Path, tree: Any, **more: Any) -> list[Problem]:
    return list(nanhunt.doctor(files.torch_file(tmp_path / "x.pt", tree), **more).problems)


def kinds(found: list[Problem]) -> set[str]:
    return {problem.kind for problem in found}


def test_counts_and_the_first_three_places_are_exact(tmp_path: Path) -> None:
    weight = torch.zeros(5, 7)
    weight[1, 2], weight[1, 3], weight[4, 0], weight[4, 6] = NAN, INF, -INF, NAN
    (found,) = problems(tmp_path, {"w": weight})
    assert (found.nan, found.posinf, found.neginf) == (2, 1, 1)
    assert found.first_bad == ((1, 2), (1, 3), (4, 0))
    assert (found.shape, found.dtype) == ((5, 7), "float32")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_bad_elements_far_into_a_large_tensor_are_found(dtype: torch.dtype, tmp_path: Path) -> None:
    """Larger than a piece that is read at once, with the bad ones around the seam."""
    seam = PIECE // dtype.itemsize
    weight = torch.ones(2 * seam + 5, dtype=dtype)
    for place in (seam - 1, seam, 2 * seam + 4):
        weight[place] = NAN
    (found,) = problems(tmp_path, {"w": weight})
    assert found.nan == 3
    assert found.first_bad == ((seam - 1,), (seam,), (2 * seam + 4,))


@pytest.mark.parametrize("seed", range(20))
def test_places_in_any_memory_layout_are_those_of_the_tensor(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    shape = torch.randint(1, 5, (4,)).tolist()
    weight = torch.randn(shape).permute(*torch.randperm(4).tolist())
    index = tuple(int(torch.randint(0, n, ())) for n in weight.shape)
    weight[index] = NAN
    (found,) = problems(tmp_path, {"w": weight})
    assert found.first_bad == (index,)
    (view,) = problems(tmp_path, {"w": weight[..., index[-1] :]})
    assert view.first_bad == ((*index[:-1], 0),)


def test_thousands_of_tensors_in_two_files_need_few_open_files(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(bytes(4 * 2000))
    spans = [Span(paths[n % 2], 4 * (n // 2), 4) for n in range(4000)]
    entries = [Entry(("w",), torch.float32, (1,), (1,), span) for span in spans]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limit[1]))
    try:
        scans, _ = scan_all(entries)
        checksums_of([ZipMember(str(n), span, 0, span) for n, span in enumerate(spans)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert {scan.high for scan in scans} == {0.0}


def test_the_extremes_are_those_of_the_finite_elements() -> None:
    values = torch.tensor([3.0, NAN, -2.0, INF])
    (scan,), _ = scan_all([Entry(("w",), values.dtype, (4,), tensor=values)])
    assert (scan.low, scan.high, scan.absmax, scan.bad) == (-2.0, 3.0, 3.0, 2)


def test_strides_are_those_of_torch() -> None:
    for shape in ((2, 3, 4), (0, 3), (5,), (), (2, 0, 3)):
        value = torch.zeros(shape)
        assert row_major(shape) == value.stride()
        assert extent(shape, value.stride()) == value.numel()
    assert index_of(Entry(("w",), torch.float32, ()), 0) == ()


def test_buffers_are_repairable_and_weights_are_not(tmp_path: Path) -> None:
    tree = poisoned("model", "body.1.running_mean", 0, INF)
    tree["model"]["head.weight"][0, 0] = NAN
    weight, buffer = problems(tmp_path, tree)
    assert (weight.role, weight.key, weight.repair) == ("weight", "model.head.weight", "")
    assert (buffer.role, buffer.key) == ("buffer", "model.body.1.running_mean")
    assert buffer.repair
    assert "recalibrate" in buffer.advice


def test_a_buffer_that_only_the_model_knows_is_called_one(tmp_path: Path) -> None:
    class Quantiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("codebook", torch.tensor([NAN, 1.0]))
            self.scale = nn.Parameter(torch.tensor([INF]))

    state = {"module.codebook": torch.tensor([NAN, 1.0]), "module.scale": torch.tensor([INF])}
    assert {p.role for p in problems(tmp_path, state)} == {"weight"}
    named = {p.key: p.role for p in problems(tmp_path, state, model=Quantiser())}
    assert named == {"module.codebook": "buffer", "module.scale": "weight"}


@pytest.mark.parametrize(
    ("count", "fresh", "said"),
    [(0, True, False), (5, False, False), (5, True, True), (0, False, True), (-3, False, True)],
)
def test_counts_of_batches_have_to_go_with_the_statistics(
    count: int, fresh: bool, said: bool, tmp_path: Path
) -> None:
    layer = nn.BatchNorm1d(2)
    if not fresh:
        layer.running_mean.fill_(0.5)
    layer.num_batches_tracked.fill_(count)
    found = problems(tmp_path, layer.state_dict())
    assert ("batch_count" in kinds(found)) == said
    assert nanhunt.doctor(tmp_path / "x.pt").healthy


def test_of_poisoned_statistics_the_count_says_nothing(tmp_path: Path) -> None:
    layer = nn.BatchNorm1d(2)
    layer.running_mean.fill_(NAN)
    assert kinds(problems(tmp_path, layer.state_dict())) == {"not_finite"}


def test_one_layer_that_ran_less_often_than_the_others_is_pointed_out(tmp_path: Path) -> None:
    layers = nn.Sequential(*(nn.BatchNorm1d(2) for _ in range(5)))
    for layer, count in zip(layers, (90, 90, 90, 90, 7), strict=True):
        layer.num_batches_tracked.fill_(count)
        layer.running_mean.fill_(1.0)
    (found,) = problems(tmp_path, layers.state_dict())
    assert found.key == "4.num_batches_tracked"
    assert "7 batches" in found.text
    assert "90" in found.text


@pytest.mark.parametrize(("factor", "said"), [(200.0, True), (0.005, True), (20.0, False)])
def test_a_layer_far_off_its_sisters_is_pointed_out(
    factor: float, said: bool, tmp_path: Path
) -> None:
    state = {f"layers.{n}.attn.w1": torch.randn(8, 8) for n in range(6)}
    state["layers.3.attn.w1"] *= factor
    assert [p.key for p in problems(tmp_path, state)] == ["layers.3.attn.w1"] * said


@pytest.mark.parametrize(
    "state",
    [
        {f"layers.{n}.w": torch.full((2, 2), 9.0**n) for n in range(6)},
        {f"layers.{n}.w": torch.full((2, 2), float(n > 0)) for n in range(6)},
        {f"layers.{n}.b": torch.full((2,), 1000.0 if n == 1 else 1.0) for n in range(6)},
        {f"layers.{n}.w": torch.full((2, 2), 1000.0 if n == 1 else 1.0) for n in range(3)},
        {f"w{n}": torch.full((2, 2), 1000.0 if n == 1 else 1.0) for n in range(6)},
    ],
    ids=["spread", "one at zero", "biases", "too few", "no layers"],
)
def test_without_a_usual_size_no_layer_stands_out(state: Any, tmp_path: Path) -> None:
    assert problems(tmp_path, state) == []


def test_values_beyond_half_precision_are_said_of_weights_alone(tmp_path: Path) -> None:
    tree = poisoned("model", "head.weight", 0, -7e4)
    tree["optimizer"]["state"][0]["exp_avg_sq"].fill_(1e6)
    (found,) = problems(tmp_path, tree)
    assert (found.kind, found.key, found.severity) == (
        "beyond_dtype",
        "model.head.weight",
        "warning",
    )


@pytest.mark.parametrize("name", ["scale", "config"])
def test_a_scale_is_a_loss_scale_only_in_a_scaler(name: str, tmp_path: Path) -> None:
    assert problems(tmp_path, {name: {"scale": 0.0, "lr": NAN, "step": -1}}) == []


def test_momenta_are_known_without_their_optimizer(tmp_path: Path) -> None:
    state = {"state.3.exp_avg_sq": torch.tensor([-1.0]), "state.3.exp_avg": torch.tensor([NAN])}
    path = files.safetensors_file(tmp_path / "optimizer.safetensors", state)
    found = nanhunt.doctor(path).problems
    assert {(p.kind, p.role) for p in found} == {
        ("second_moment_negative", "optimizer"),
        ("not_finite", "optimizer"),
    }


def test_every_kind_of_problem_has_its_rule_with_a_source() -> None:
    folder = Path(nanhunt.__file__).parent / "checkpoints" / "judge"
    written = {
        kind
        for file in (folder / "judge.py", folder / "batch_norm.py")
        for kind in re.findall(r'"([a-z_]+)",?\s+"(?:critical|warning|info)"', file.read_text())
    } | {"scale_outlier", "batch_count"}
    assert written == {rule.id for rule in RULES}
    assert all(rule.source and rule.meaning.endswith(".") for rule in RULES)


def test_old_files_get_the_same_verdict(tmp_path: Path) -> None:
    tree = poisoned("model", "body.1.running_mean", 2, -INF)
    new = nanhunt.doctor(files.torch_file(tmp_path / "new.pt", tree)).problems
    old = nanhunt.doctor(files.torch_file(tmp_path / "old.pt", tree, legacy=True)).problems
    assert [(p.key, p.kind, p.first_bad) for p in new] == [
        (p.key, p.kind, p.first_bad) for p in old
    ]
    assert new[0].repair != ""
    assert old[0].repair == ""


def test_no_repair_is_promised_of_a_count_in_an_old_file(tmp_path: Path) -> None:
    tree = files.whole()
    tree["model"]["body.1.num_batches_tracked"].fill_(-1)
    for legacy, repair in ((False, "reset to 0"), (True, "")):
        path = files.torch_file(tmp_path / f"{legacy}.pt", tree, legacy=legacy)
        (found,) = [p for p in nanhunt.doctor(path).problems if p.kind == "batch_count"]
        assert found.repair == repair


def test_a_file_saved_without_checksums_is_not_called_damaged(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = files.torch_file(tmp_path / "x.pt", files.whole())
    finally:
        torch.serialization.set_crc32_options(True)
    assert nanhunt.doctor(path).problems == ()


def test_a_missing_path_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        nanhunt.doctor(tmp_path / "nothing.pt")


def test_a_file_that_becomes_shorter_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files.safetensors_file(tmp_path / "x.safetensors", {"w": torch.ones(1000)})
    read = opening.read

    def and_shorten(path: Path) -> Any:
        contents = read(path)
        with path.open("r+b") as stream:
            stream.truncate(1000)
        return contents

    monkeypatch.setattr(opening, "read", and_shorten)
    with pytest.raises(CheckpointError, match="became shorter while it was read"):
        nanhunt.doctor(path)


def test_zeros_beside_minus_inf_are_no_mask_where_nobody_writes_one(tmp_path: Path) -> None:
    """Moments and running means begin as zeros: one overflow later they look like a mask."""
    bad = torch.tensor([0.0, -INF, 0.0])
    state = {"state": {0: {"momentum_buffer": bad}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    statistics = {"n.running_mean": bad, "n.running_var": torch.ones(3)}
    found = problems(tmp_path, {"optimizer": state, "model": {**statistics, "mask": bad.clone()}})
    told = {problem.key.rpartition(".")[2]: (problem.kind, problem.severity) for problem in found}
    assert told == {
        "momentum_buffer": ("not_finite", "critical"),
        "running_mean": ("not_finite", "critical"),
        "mask": ("mask", "info"),
    }
    assert len(found) == 3


def test_a_learning_rate_that_is_a_tensor_is_an_option_and_no_weight(tmp_path: Path) -> None:
    """At 0, where --fix-weights had put it, nothing would have been learnt."""
    group = {"lr": torch.tensor(NAN), "eps": torch.tensor(1e9), "beta": 0.9, "params": [0]}
    tree = {"state": {}, "param_groups": [group]}
    path = files.torch_file(tmp_path / "x.pt", tree)
    found = nanhunt.doctor(path, fix=True, fix_weights=True)
    (problem,) = found.problems
    assert (problem.kind, problem.role) == ("optimizer_setting", "optimizer")
    assert (problem.severity, problem.repair) == ("critical", "")
    assert found.repair is not None
    assert (found.repair.path, found.repair.left) == ("", ("param_groups.0.lr",))


def test_what_the_model_calls_a_parameter_is_no_mask(tmp_path: Path) -> None:
    """As an adapter's matrix, which begins as zeros; only the model tells it from a mask."""

    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.zeros(3))
            self.register_buffer("mask", torch.zeros(3))

    state = {f"module.{name}": torch.tensor([0.0, -INF, 0.0]) for name in ("up", "mask")}
    found = problems(tmp_path, state, model=Adapter())
    assert [(problem.key, problem.kind) for problem in found] == [
        ("module.up", "not_finite"),
        ("module.mask", "mask"),
    ]
    assert kinds(problems(tmp_path, state)) == {"mask"}
