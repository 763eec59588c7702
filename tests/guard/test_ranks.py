"""In a distributed run all ranks undo the same steps.

The ranks leave with `os._exit`. PyTorch aborts now and then when an interpreter ends while threads
of gloo live ("terminate called without an active exception", pytorch/pytorch pull request 179291;
without nanhunt, on busy cores and with a long switch interval, 10 of 60 pairs of ranks), and they
outlive `destroy_process_group` where anybody has the group: DDP, a device mesh, or the default
arguments of `torch.distributed.nn.functional` if an optimizer was the first to import it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nanhunt

ROOT = Path(nanhunt.__file__).resolve().parent.parent

PROGRAM = """
import os
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import nanhunt
from tests.guard import programs

rank, meeting, parallel = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "parallel"
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)

def run(data):
    bare = programs.net()
    model = DistributedDataParallel(bare) if parallel else bare
    optimizer = torch.optim.Adam(model.parameters())
    with nanhunt.guard(model, optimizer, policy="skip_batch", bundle=None) as guard:
        programs.plain_loop(model, optimizer, programs.loader(data))
    return programs.everything(bare, optimizer), guard.report

made = programs.batches(8)
expected, _ = run([x for i, x in enumerate(made) if i != 5])
if rank == 1:
    made[5][0, 0] = float("nan")
got, report = run(made)
assert programs.different(got, expected) == [], programs.different(got, expected)
assert report.counts == {"skipped": 1}, report
if not parallel:
    assert (report.events[0].bad == ("another rank",)) == (rank == 0), report
dist.destroy_process_group()
os._exit(0)
"""


def ranks(tmp_path: Path, how: str) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, str(rank), str(tmp_path / "m"), how],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], told


def test_a_step_that_is_bad_on_one_rank_is_undone_on_all(tmp_path: Path) -> None:
    ranks(tmp_path, "alone")


def test_under_ddp_all_ranks_end_with_the_bits_of_the_clean_run(tmp_path: Path) -> None:
    ranks(tmp_path, "parallel")
