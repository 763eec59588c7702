"""Promises of the hunt that need a training loop of some kind, each a small one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import nanhunt


def tiny(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
    model.append(nn.Linear(8, 1))
    return model, torch.optim.Adam(model.parameters(), lr=1e-2)


def bits(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    state = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    tensors = [*model.parameters(), *model.buffers(), *state]
    return [t.detach().clone() for t in tensors] + [torch.get_rng_state()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def failing_at(step: int) -> tuple[nn.Module, Any, Callable[[], Any], list[Any]]:
    """A step that draws random numbers, counts, collects, and fails at one batch."""
    model, optimizer = tiny()
    data = torch.randn(400, 4)
    data[step] *= 1e38
    loader = DataLoader(TensorDataset(data), batch_size=1, num_workers=0)
    batches = iter(loader)
    losses: list[float] = []
    model.eval()
    model[3].train()

    def step_fn() -> torch.Tensor:
        (x,) = next(batches)
        optimizer.zero_grad()
        loss = (model(x * (1 + random.random())) + x.norm()).pow(2).mean()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step_fn, losses


def test_a_failure_at_step_300_is_caught_there_and_undone_to_the_bit() -> None:
    random.seed(1)
    model, optimizer, step_fn, _ = failing_at(300)
    for _ in range(300):
        step_fn()
    bare = bits(model, optimizer)

    random.seed(1)
    model, optimizer, step_fn, losses = failing_at(300)
    report = nanhunt.hunt(model, step_fn, steps=400)
    assert report.finding is not None
    assert report.finding.step == 300
    assert report.steps_run == 301
    assert report.replay == "bit_exact"
    assert same(bits(model, optimizer)[:-1], bare[:-1])
    assert all(torch.isfinite(t).all() for t in bits(model, optimizer)[:-1])
    assert len(losses) == 300, "what the undone step appended is taken back"


def test_the_batch_of_an_undone_step_comes_again() -> None:
    model, _, step_fn, _ = failing_at(3)
    with nanhunt.Hunt(model, step_fn) as hunt:
        first = hunt.run(10).finding
        second = hunt.step()
    assert first is not None
    assert second is not None
    assert (first.op, first.source) == (second.op, second.source)


def test_rewinding_a_healthy_step_and_stepping_again_gives_the_same_bits() -> None:
    model, optimizer, step_fn, _ = failing_at(399)
    with nanhunt.Hunt(model, step_fn) as hunt:
        hunt.run(3)
        hunt.step()
        once = bits(model, optimizer)
        hunt.rewind()
        hunt.step()
        assert same(bits(model, optimizer), once)


def test_a_recomputed_failure_is_backward_and_says_so() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            if torch._C._current_autograd_node() is not None:
                y = y / 0  # culprit
            return y

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Noisy()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(lambda t: self.inner(t).exp(), x, use_reentrant=False)

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.randn(3, 4)

    def step_fn() -> None:
        optimizer.zero_grad()
        net(x).sum().backward()
        optimizer.step()

    finding = nanhunt.hunt(net, step_fn, steps=2).finding
    assert finding is not None
    assert (finding.phase, finding.call, finding.module) == ("backward", "recompute", "inner")
    assert finding.source is not None
    assert finding.source.code.endswith("# culprit")


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_backward_failure_under_checkpointing_names_the_forward_line(reentrant: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def inner(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            return (y - y).abs().sqrt()  # culprit

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.randn(3, 4, requires_grad=True)

    def step_fn() -> None:
        optimizer.zero_grad()
        net(x).sum().backward()
        optimizer.step()

    finding = nanhunt.hunt(net, step_fn, steps=2).finding
    assert finding is not None
    assert (finding.phase, finding.node) == ("backward", "SqrtBackward0")
    assert finding.source is not None
    assert finding.source.code.endswith("# culprit")


def test_warm_up_skips_of_a_grad_scaler_are_no_finding() -> None:
    model, optimizer = tiny()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    x = torch.randn(16, 4)

    def step_fn() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = model(x).pow(2).mean() * 8
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    report = nanhunt.hunt(model, step_fn, steps=40)
    assert report.healthy
    assert report.findings == ()
    assert scaler.get_scale() < 2.0**24


def test_a_scaler_that_hides_a_real_nan_gradient_is_seen_through_at_the_first_skip() -> None:
    model, optimizer = tiny()
    scaler = torch.amp.GradScaler("cpu")
    x = torch.randn(16, 4)

    def step_fn() -> torch.Tensor:
        optimizer.zero_grad()
        y = model(x)
        loss = torch.where(y != y, (y * 0).sqrt(), y).mean()  # culprit
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    finding = nanhunt.hunt(model, step_fn, steps=5).finding
    assert finding is not None
    assert (finding.step, finding.phase, finding.node) == (0, "backward", "SqrtBackward0")


def test_two_optimizers_in_one_step_are_undone_together() -> None:
    torch.manual_seed(0)
    gen, disc = nn.Linear(3, 3), nn.Linear(3, 1)
    opt_g = torch.optim.Adam(gen.parameters())
    opt_d = torch.optim.Adam(disc.parameters())
    x = torch.randn(5, 3)
    count = 0

    def step_fn() -> None:
        nonlocal count
        count += 1
        opt_d.zero_grad()
        (disc(x).mean() - disc(gen(x).detach()).mean()).backward()
        opt_d.step()
        opt_g.zero_grad()
        loss = -disc(gen(x)).mean()
        if count == 4:
            loss = loss * torch.tensor(0.0).log()
        loss.backward()
        opt_g.step()

    with nanhunt.Hunt({"gen": gen, "disc": disc}, step_fn) as hunt:
        for _ in range(3):
            assert hunt.step() is None
        before = [p.detach().clone() for p in (*gen.parameters(), *disc.parameters())]
        finding = hunt.step()
    assert finding is not None
    assert finding.step == 3
    after = [*gen.parameters(), *disc.parameters()]
    assert all(map(torch.equal, before, after))
    assert count == 3, "the counter in the closure is put back as well"


def test_a_step_that_raises_keeps_its_exception_and_gets_one_note() -> None:
    model, optimizer = tiny()
    before = bits(model, optimizer)

    def step_fn() -> None:
        model(torch.randn(4, 4))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        nanhunt.hunt(model, step_fn)
    assert len(caught.value.__notes__) == 1
    assert "step 0" in caught.value.__notes__[0]
    assert same(bits(model, optimizer), before)


def test_a_finite_check_that_raises_is_followed_to_the_origin() -> None:
    model, optimizer = tiny()
    x = torch.randn(4, 4)

    def step_fn() -> None:
        loss = (model(x) * 0).log().mean()  # culprit
        if not torch.isfinite(loss):
            raise ValueError("loss is not finite")
        loss.backward()
        optimizer.step()

    with pytest.raises(ValueError, match="loss is not finite"):
        nanhunt.hunt(model, step_fn)
    report = nanhunt.last_report()
    assert report is not None
    assert report.finding is not None
    assert report.finding.op == "aten.log.default"


def test_a_step_that_its_loop_skips_is_noticed() -> None:
    model, optimizer = tiny()
    x = torch.randn(4, 4)
    count = 0

    def step_fn() -> None:
        nonlocal count
        count += 1
        optimizer.zero_grad()
        loss = model(x).mean()
        if count == 3:
            loss = (loss * 0).log()  # culprit
        if not torch.isfinite(loss):
            return
        loss.backward()
        optimizer.step()

    finding = nanhunt.hunt(model, step_fn, steps=6).finding
    assert finding is not None
    assert (finding.step, finding.op) == (2, "aten.log.default")


def test_without_a_snapshot_the_finding_says_that_it_could_not_replay() -> None:
    model, _, step_fn, _ = failing_at(2)
    report = nanhunt.hunt(model, step_fn, snapshot=False)
    assert report.finding is not None
    assert report.replay.startswith("not_reproduced: no snapshot")


def test_ctrl_c_gives_a_partial_report_and_the_state_before_the_step() -> None:
    model, optimizer = tiny()
    x = torch.randn(4, 4)
    count = 0

    def step_fn() -> None:
        nonlocal count
        count += 1
        optimizer.zero_grad()
        model(x).mean().backward()
        optimizer.step()
        if count == 4:
            raise KeyboardInterrupt

    report = nanhunt.hunt(model, step_fn, steps=9)
    assert report.interrupted
    assert report.status == "interrupted"
    assert report.findings == ()
    assert report.steps_run == 3
    assert count == 3


def test_an_evaluation_step_needs_no_backward() -> None:
    model, _ = tiny()
    model.eval()
    x = torch.randn(4, 4)

    def step_fn() -> torch.Tensor:
        with torch.no_grad():
            return model(x).mean().log() * float("inf") * 0

    finding = nanhunt.hunt(model, step_fn, steps=2).finding
    assert finding is not None


def test_a_compiled_model_is_replayed_eagerly() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(3, 4)
    count = 0

    def step_fn() -> None:
        nonlocal count
        count += 1
        optimizer.zero_grad()
        y = compiled(x if count < 3 else x * float("inf"))
        y.sum().backward()
        optimizer.step()

    report = nanhunt.hunt(compiled, step_fn, steps=5)
    assert report.finding is not None
    assert report.finding.step == 2


def test_a_failure_of_the_compiled_code_alone_is_told_as_such() -> None:
    class OnlyCompiled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            # Stands for a wrong kernel: what only the compiled code computes.
            return y / torch.zeros(()) if torch.compiler.is_compiling() else y

    model = torch.compile(OnlyCompiled(), backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(3, 4)

    def step_fn() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    finding = nanhunt.hunt(model, step_fn, steps=3).finding
    assert finding is not None
    assert finding.cause == "compiler_only"
    assert finding.step == 0


def test_without_room_for_a_close_look_the_place_is_still_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    model, x = nn.Linear(2, 1), torch.ones(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step_fn() -> None:
        optimizer.zero_grad()
        (model(x) * 0).log().sum().backward()
        optimizer.step()

    for place in ("__init__", "after"):
        with monkeypatch.context() as patch:
            patch.setattr(f"nanhunt.core.observe.evidence.EvidenceCollector.{place}", full)
            finding = nanhunt.hunt(model, step_fn, steps=2, progress=False).finding
        assert finding is not None
        assert finding.op == "aten.log.default"
        assert finding.cause == "not_established"


def test_the_origin_is_found_through_a_chain_of_five_thousand_operations() -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        y = (model(torch.ones(2, 4)) * 0).log()  # culprit
        for _ in range(5000):
            y = y + 1
        y.mean().backward()
        optimizer.step()

    finding = nanhunt.hunt(model, step, progress=False, trials=False).finding
    assert finding is not None
    assert finding.op == "aten.log.default"
    assert finding.source is not None
    assert finding.source.code.endswith("# culprit")
