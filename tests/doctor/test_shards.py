"""A checkpoint that two processes wrote together, each its shards (FSDP2, torch.distributed)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import nanhunt
from tests.doctor import files

WRITE = """
import os
import sys
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

meeting, rank = f"file://{sys.argv[2]}", int(sys.argv[3])
dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
fully_shard(net, mesh=init_device_mesh("cpu", (2,)))
optimizer = torch.optim.Adam(net.parameters())
net(torch.randn(8, 4)).sum().backward()
optimizer.step()
if rank == 1:  # the last row of the last weight, which only this process has
    optimizer.state[net[2].weight]["exp_avg_sq"].to_local()[-1, -1] = -1.0
model, state = get_state_dict(net, optimizer)
checkpoint.save({"model": model, "optim": state}, checkpoint_id=sys.argv[1])
dist.destroy_process_group()
os._exit(0)  # see tests/guard/test_ranks.py
"""


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded") / "step_100"
    command = [sys.executable, "-W", "ignore", "-c", WRITE, str(folder)]
    ranks = [
        subprocess.Popen(
            [*command, str(folder.parent / "meeting"), str(rank)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, told = rank.communicate(timeout=120)
        assert rank.returncode == 0, told
    assert len(list(folder.glob("*.distcp"))) == 2
    return folder


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))


def test_the_bad_shard_is_named_by_its_place_in_the_tensor(sharded: Path) -> None:
    (problem,) = nanhunt.doctor(sharded).problems
    assert problem.kind == "second_moment_negative"
    assert problem.key == "optim.state.2.weight.exp_avg_sq@2,0"
    assert problem.shape == (1, 6)


def test_shards_are_laid_beside_the_model_as_the_whole(sharded: Path) -> None:
    match = nanhunt.doctor(sharded, network()).match
    assert match is not None
    assert match.mismatches == ()
    assert (match.found, match.model_parameters, match.file_parameters) == (9, 63, 63)
    wider = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
    match = nanhunt.doctor(sharded, wider).match
    assert match is not None
    assert {m.text for m in match.mismatches} == {
        "2.weight is [3, 6] in the file and [4, 6] in the model",
        "2.bias is [3] in the file and [4] in the model",
    }


def test_torch_loads_the_repaired_copy(sharded: Path) -> None:
    diagnosis = nanhunt.doctor(sharded, fix=True)
    assert diagnosis.mended
    assert diagnosis.repair is not None
    merged = []
    for folder in (sharded, Path(diagnosis.repair.path)):
        file = folder.with_suffix(".pt")
        dcp_to_torch_save(folder, file)
        merged.append(torch.load(file, weights_only=True))
    before, after = merged
    state = after["optim"]["state"]["2.weight"]
    assert state["exp_avg_sq"][-1, -1] == state["exp_avg"][-1, -1] == 0
    for name in ("exp_avg", "exp_avg_sq"):
        old = before["optim"]["state"]["2.weight"][name].clone()
        old[-1, -1] = 0
        assert torch.equal(old, state[name])
    for name, value in before["model"].items():
        assert files.raw_bytes(value) == files.raw_bytes(after["model"][name])
