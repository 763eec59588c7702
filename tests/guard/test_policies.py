"""What each policy promises, bit for bit."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.utils.data import DataLoader

import nanhunt
from nanhunt.errors import GuardStoppedError, HuntBusyError, PoisonedStateError, UsageError
from tests.guard import programs
from tests.guard.programs import BAD, COUNT, OPTIMIZERS, batches, clean, different, everything


def guarded(model: Any, optimizer: Any, **options: Any) -> Any:
    return nanhunt.guard(model, optimizer, bundle=None, **options)


# -- skip_batch ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("source", ["loader", "batches", "list"])
def test_skipping_bad_batches_ends_with_the_bits_of_the_clean_run(
    kind: str, source: str, value: float
) -> None:
    made = batches(bad=BAD, value=value)
    wrapped = programs.loader if source == "loader" else list
    model = programs.net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    programs.plain_loop(model, optimizer, wrapped(clean(made, BAD)))
    expected = everything(model, optimizer)

    model = programs.net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    with guarded(model, optimizer, policy="skip_batch") as guard:
        data = wrapped(made)
        programs.plain_loop(model, optimizer, guard.batches(data) if source == "batches" else data)
    assert different(everything(model, optimizer), expected) == []
    assert guard.report.counts == {"skipped": 3}
    assert [event.step for event in guard.report.events] == list(BAD)
    assert guard.report.steps == COUNT


class Augmented(torch.utils.data.Dataset[Any]):
    """Draws a random number for every batch, in the main process."""

    def __init__(self, made: list[Any]) -> None:
        self._made = made

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, index: int) -> Any:
        return self._made[index] * (0.5 + torch.rand(()))


@pytest.mark.parametrize("source", ["loader", "batches", "list"])
def test_random_numbers_drawn_for_a_bad_batch_are_drawn_again(source: str) -> None:
    def loop(model: Any, optimizer: Any, data: Any) -> None:
        for x in data:
            noisy = x + torch.randn_like(x)  # before the model is called
            optimizer.zero_grad()
            (model(noisy) - 1).square().mean().backward()
            optimizer.step()

    made = batches(bad=BAD)
    runs = []
    for kept in (clean(made, BAD), made):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        with guarded(model, optimizer, policy="skip_batch") as guard:
            augmented = DataLoader(Augmented(kept), batch_size=None)
            data = {"loader": augmented, "batches": guard.batches(augmented), "list": kept}
            loop(model, optimizer, data[source])
        runs.append(everything(model, optimizer))
    assert guard.report.counts == {"skipped": 3}
    assert different(*runs) == []


@pytest.mark.parametrize("policy", ["stop", "skip_batch", "restore_buffers", "rollback"])
@pytest.mark.parametrize("every", [1, 4])
def test_a_healthy_run_keeps_its_bits(policy: str, every: int) -> None:
    made = batches()
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    programs.plain_loop(model, optimizer, programs.loader(made))
    expected = everything(model, optimizer)
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    with guarded(model, optimizer, policy=policy, every=every, keep_every=7) as guard:
        programs.plain_loop(model, optimizer, programs.loader(made))
    assert different(everything(model, optimizer), expected) == []
    assert guard.report.healthy
    assert (guard.report.steps, guard.report.checks) == (COUNT, COUNT // every)


def amp_loop(model: Any, optimizer: Any, scaler: GradScaler, data: Any) -> None:
    for x in data:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = (model(x) - 1).square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()


def test_with_a_scaler_its_scale_and_growth_are_put_back_too() -> None:
    made = batches(bad=BAD)
    runs = []
    for data in (clean(made, BAD), made):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        scaler = GradScaler("cpu", init_scale=2.0**12, growth_interval=5)
        with guarded(model, optimizer, scaler=scaler, policy="skip_batch") as guard:
            amp_loop(model, optimizer, scaler, programs.loader(data))
        runs.append(everything(model, optimizer, scaler))
    assert different(*runs) == []
    assert guard.report.counts == {"skipped": 3}


@pytest.mark.parametrize("policy", ["skip_batch", "restore_buffers"])
def test_with_an_optimizer_that_leaves_out_its_update_itself_a_step_counts_once(
    policy: str,
) -> None:
    made = batches(bad=BAD)
    runs = []
    for data in (clean(made, BAD), made):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        scaler = GradScaler("cpu", init_scale=2.0**12)
        with guarded(model, optimizer, scaler=scaler, policy=policy) as guard:
            for x in programs.loader(data):
                optimizer.zero_grad()
                scaler.scale((model(x) - 1).square().mean()).backward()
                scaler.step(optimizer)
                scaler.update()
        runs.append(everything(model, optimizer, scaler))
    assert sum(guard.report.counts.values()) == 3
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    if policy == "skip_batch":
        assert different(*runs) == []


def test_steps_that_a_scaler_leaves_out_while_it_probes_are_its_own() -> None:
    runs = []
    for watched in (False, True):
        model = programs.net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
        if watched:
            with guarded(model, optimizer, scaler=scaler, policy="skip_batch") as guard:
                amp_loop(model, optimizer, scaler, programs.loader(batches()))
            assert guard.report.healthy
            assert guard.report.steps == COUNT
        else:
            amp_loop(model, optimizer, scaler, programs.loader(batches()))
        runs.append(everything(model, optimizer, scaler))
        assert scaler.get_scale() < 2.0**127, "it never probed: this test cannot fail"
    assert different(*runs) == []


def gan_loop(nets: dict[str, nn.Module], optimizers: Any, data: Any) -> None:
    for x in data:
        fake = nets["generator"](x)
        real_side = (nets["judge"](x) - 1).square().mean()
        optimizers[0].zero_grad()
        (real_side + nets["judge"](fake.detach()).square().mean()).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        (nets["judge"](fake) - 1).square().mean().backward()
        optimizers[1].step()


def gan() -> tuple[dict[str, nn.Module], list[Any]]:
    torch.manual_seed(3)
    generator = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.2))
    nets = {"generator": generator, "judge": nn.Sequential(nn.Linear(6, 1))}
    return nets, [torch.optim.Adam(nets[n].parameters(), lr=1e-3) for n in ("judge", "generator")]


def test_a_step_of_two_optimizers_is_undone_whole() -> None:
    made = batches(bad=BAD)
    runs = []
    for data in (clean(made, BAD), made):
        nets, optimizers = gan()
        with guarded(nets, optimizers, policy="skip_batch") as guard:
            gan_loop(nets, optimizers, programs.loader(data))
        runs.append(everything(nets, *optimizers))
    assert different(*runs) == []
    assert (guard.report.counts, guard.report.steps) == ({"skipped": 3}, COUNT)


def test_when_the_second_update_is_bad_the_first_is_undone_as_well() -> None:
    def loop(nets: Any, optimizers: Any, data: Any) -> None:
        for x in data:
            optimizers[0].zero_grad()
            nets["judge"](x).square().mean().backward()
            optimizers[0].step()
            optimizers[1].zero_grad()
            scale = float("nan") if x[0, 0] > 100 else 1.0
            (nets["generator"](x).square().mean() * scale).backward()
            optimizers[1].step()

    made = batches(bad=BAD, value=200.0)
    runs = []
    for data in (clean(made, BAD), made):
        nets, optimizers = gan()
        with guarded(nets, optimizers, policy="skip_batch"):
            loop(nets, optimizers, data)
        runs.append(everything(nets, *optimizers))
    assert different(*runs) == []


def test_an_optimizer_that_is_never_used_does_not_make_one_step_of_the_loop() -> None:
    made = batches(bad=(COUNT - 1,))
    model = programs.net()
    used = torch.optim.SGD(model[0].parameters(), lr=0.05)
    idle = torch.optim.SGD(model[4].parameters(), lr=0.05)
    programs.plain_loop(model, used, made[: COUNT // 16 * 16])
    expected = everything(model, used)
    model = programs.net()
    used = torch.optim.SGD(model[0].parameters(), lr=0.05)
    idle = torch.optim.SGD(model[4].parameters(), lr=0.05)
    with guarded(model, [used, idle], policy="skip_batch") as guard:
        programs.plain_loop(model, used, made)
    assert guard.report.counts == {"skipped": 1}
    assert different(everything(model, used), expected) == []


def accumulating_loop(model: Any, optimizer: Any, data: Any) -> None:
    for index, x in enumerate(data):
        ((model(x) - 1).square().mean() / 2).backward()
        if index % 2:
            optimizer.step()
            optimizer.zero_grad()


def test_with_accumulation_all_batches_of_the_step_are_dropped() -> None:
    made = batches(bad=(4, 21))
    kept = clean(made, (4, 5, 20, 21))
    runs = []
    for data in (kept, made):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        with guarded(model, optimizer, policy="skip_batch") as guard:
            accumulating_loop(model, optimizer, programs.loader(data))
        runs.append(everything(model, optimizer))
    assert different(*runs) == []
    assert (guard.report.steps, guard.report.counts) == (COUNT // 2, {"skipped": 2})


def scheduled_loop(model: Any, optimizer: Any, data: Any, guard: Any) -> list[float]:
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    rates = []
    for x in data:
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()
        if not guard.undone:
            schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_a_schedule_that_asks_counts_healthy_steps_alone() -> None:
    made = batches(bad=BAD)
    runs, rates = [], []
    for data in (clean(made, BAD), made):
        model = programs.net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with guarded(model, optimizer, policy="skip_batch") as guard:
            rates.append(scheduled_loop(model, optimizer, programs.loader(data), guard))
        runs.append(everything(model, optimizer))
    assert different(*runs) == []
    assert set(rates[1]) == {*rates[0], 0.1}


def test_an_evaluation_between_two_steps_is_part_of_neither() -> None:
    made = batches(bad=BAD)
    runs = []
    for data in (clean(made, BAD), made):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        with guarded(model, optimizer, policy="skip_batch"):
            for _ in range(2):
                model.train()
                programs.plain_loop(model, optimizer, programs.loader(data))
                schedule.step()
                model.eval()
                with torch.no_grad():
                    for x in programs.loader(batches(5)):
                        model(x)
        runs.append(everything(model, optimizer))
        assert optimizer.param_groups[0]["lr"] == 0.001 / 4
    assert different(*runs) == []


@pytest.mark.parametrize("wrapped", [programs.loader, list])
@pytest.mark.parametrize("bad", [(0, 17, 43), (1, 17, 43)])
def test_a_model_whose_calls_cannot_be_seen_is_guarded_too(wrapped: Any, bad: Any) -> None:
    made = batches(bad=bad)

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = programs.net()

        def score(self, x: Any) -> Any:
            return self.inner(x)

    runs = []
    for data in (clean(made, bad), made):
        model = Hidden()
        optimizer = torch.optim.Adam(model.parameters())
        with guarded(model, optimizer, policy="skip_batch") as guard:
            for x in wrapped(data):
                optimizer.zero_grad()
                (model.score(x) - 1).square().mean().backward()
                optimizer.step()
        runs.append(everything(model, optimizer))
    assert guard.report.counts == {"skipped": 3}
    assert different(*runs) == []


def test_a_compiled_model_is_guarded_too() -> None:
    made = batches(bad=(1, 17))
    runs = []
    for data in (clean(made, (1, 17)), made):
        bare = programs.net()
        model = torch.compile(bare, backend="eager")
        model(made[2])  # compiled before the guard begins
        bare.load_state_dict(programs.net().state_dict())
        torch.manual_seed(1)
        optimizer = torch.optim.Adam(model.parameters())
        with guarded(model, optimizer, policy="skip_batch") as guard:
            programs.plain_loop(model, optimizer, programs.loader(data))
        runs.append(everything(bare, optimizer))
    assert guard.report.counts == {"skipped": 2}
    assert different(*runs) == []


def test_checking_every_fourth_step_undoes_all_four() -> None:
    made = batches(bad=(17,))
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    programs.plain_loop(model, optimizer, programs.loader(clean(made, (16, 17, 18, 19))))
    expected = everything(model, optimizer)
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with guarded(model, optimizer, policy="skip_batch", every=4) as guard:
        programs.plain_loop(model, optimizer, programs.loader(made))
    assert different(everything(model, optimizer), expected) == []
    assert guard.report.counts == {"skipped": 1}


# -- restore_buffers ----------------------------------------------------------------------------


def skipping_loop(model: Any, optimizer: Any, data: Any) -> None:
    """As loops do: what is not finite is left out, after BatchNorm has taken it in."""
    for x in data:
        loss = (model(x) - 1).square().mean()
        if not torch.isfinite(loss):
            continue
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("policy", ["restore_buffers", "skip_batch"])
def test_statistics_survive_a_loop_that_leaves_out_bad_batches_too_late(policy: str) -> None:
    made = batches(bad=BAD)
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    skipping_loop(model, optimizer, programs.loader(made))
    assert not torch.isfinite(model[1].running_mean).all(), "nothing to survive"

    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    with guarded(model, optimizer, policy=policy) as guard:
        skipping_loop(model, optimizer, programs.loader(made))
    assert torch.isfinite(model[1].running_mean).all()
    assert sum(guard.report.counts.values()) == 3
    assert all("buffer 1.running_mean" in event.bad for event in guard.report.events)
    if policy == "skip_batch":
        got = everything(model, optimizer)
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        skipping_loop(model, optimizer, programs.loader(clean(made, BAD)))
        assert different(got, everything(model, optimizer)) == []


def test_restoring_buffers_leaves_a_good_update_alone() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = everything(model, optimizer)
    with guarded(model, optimizer, policy="restore_buffers") as guard:
        (model(torch.randn(4, 6)) - 1).square().mean().backward()
        model[1].running_mean.fill_(float("nan"))
        optimizer.step()
    assert guard.report.counts == {"restored buffers": 1}
    changed = different(everything(model, optimizer), before)
    assert ".0.weight" in changed
    assert not [name for name in changed if "running" in name]


def test_restoring_buffers_stops_where_parameters_are_bad_as_well() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = everything(model, optimizer)
    with (
        pytest.raises(GuardStoppedError, match=r"buffers alone do not help: parameter 0\.weight"),
        guarded(model, optimizer, policy="restore_buffers"),
    ):
        programs.plain_loop(model, optimizer, programs.loader(batches(3, bad=(0,))))
    before.pop("random"), (after := everything(model, optimizer)).pop("random")
    assert different(after, before) == []


# -- rollback -----------------------------------------------------------------------------------


def poisoning_loop(model: Any, optimizer: Any, data: Any, at: int) -> list[bool]:
    finite = []
    for index, x in enumerate(data):
        if index == at:
            for state in optimizer.state.values():
                state["exp_avg_sq"].fill_(float("nan"))
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()
        finite.append(all(bool(torch.isfinite(p).all()) for p in model.parameters()))
    return finite


def test_rollback_survives_a_poisoned_optimizer() -> None:
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    with guarded(model, optimizer, policy="rollback", keep_every=10) as guard:
        finite = poisoning_loop(model, optimizer, programs.loader(batches()), at=25)
    assert all(finite)
    assert guard.report.counts == {"rolled back": 1}
    assert guard.report.events[0].step == 25
    assert all(bool(torch.isfinite(s["exp_avg_sq"]).all()) for s in optimizer.state.values())


def test_rollback_goes_back_to_the_bits_of_the_last_good_snapshot() -> None:
    made = batches()
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    programs.plain_loop(model, optimizer, programs.loader(made[:20]))
    expected = everything(model, optimizer)
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    with guarded(model, optimizer, policy="rollback", keep_every=10):
        poisoning_loop(model, optimizer, programs.loader(made[:26]), at=25)
    got = everything(model, optimizer)
    got.pop("random"), expected.pop("random")
    assert different(got, expected) == []


def test_rollback_leaves_the_learning_rate_to_its_schedule() -> None:
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=40)
    rates: dict[str, list[float]] = {}
    for bad in ((), (25,)):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=40)
        seen = rates.setdefault(str(bad), [])
        with guarded(model, optimizer, policy="rollback", keep_every=10) as guard:
            for x in programs.loader(batches(bad=bad)):
                optimizer.zero_grad()
                (model(x) - 1).square().mean().backward()
                optimizer.step()
                schedule.step()
                seen.append(optimizer.param_groups[0]["lr"])
    assert guard.report.counts == {"rolled back": 1}
    assert rates["()"] == rates["(25,)"]


def test_skipping_cannot_cure_a_poisoned_optimizer_and_says_so() -> None:
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    with (
        pytest.raises(GuardStoppedError, match=r"bad before the step began: optimizer state"),
        guarded(model, optimizer, policy="skip_batch"),
    ):
        poisoning_loop(model, optimizer, programs.loader(batches()), at=25)


def test_rollback_with_a_scaler_puts_back_the_scaler_of_the_snapshot() -> None:
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    scaler = GradScaler("cpu", init_scale=2.0**10, growth_interval=1000)
    made = batches(12, bad=(5, 6))
    with guarded(model, optimizer, scaler=scaler, policy="rollback", keep_every=4) as guard:
        amp_loop(model, optimizer, scaler, programs.loader(made))
    assert guard.report.counts == {"rolled back": 2}
    assert scaler.get_scale() == 2.0**10
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


# -- stopping -----------------------------------------------------------------------------------


def test_stop_undoes_the_step_and_says_which_it_was() -> None:
    made = batches(bad=BAD[1:])
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    programs.plain_loop(model, optimizer, programs.loader(made[: BAD[1]]))
    expected = everything(model, optimizer)
    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    guard = guarded(model, optimizer, policy="stop")
    with (
        pytest.raises(GuardStoppedError, match=r"policy stop; step 17: not finite: loss") as caught,
        guard,
    ):
        programs.plain_loop(model, optimizer, programs.loader(made))
    assert different(everything(model, optimizer), expected) == []
    assert guard.report.stopped == str(caught.value)
    assert guard.report.counts == {"stopped": 1}
    assert guard.report.steps == 18


def test_a_loop_that_swallows_the_stop_gets_no_further() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stops = 0
    with guarded(model, optimizer, policy="stop"):
        for x in programs.loader(batches(6, bad=(2,))):
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            before = everything(model)
            try:
                optimizer.step()
            except GuardStoppedError:
                stops += 1
                same = different(everything(model), before)
                assert not [name for name in same if "weight" in name]
    assert stops == 4


def test_too_many_bad_steps_in_a_row_stop_the_loop() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = guarded(model, optimizer, policy="skip_batch", limit=3)
    with pytest.raises(GuardStoppedError, match=r"3 bad steps in a row \(limit\)"), guard:
        programs.plain_loop(model, optimizer, batches(20, bad=(1, 2, 4, 5, 7, 8, 9, 12)))
    assert guard.report.counts == {"skipped": 6, "stopped": 1}
    assert guard.report.events[-1].step == 9


def test_too_many_bad_steps_altogether_stop_the_loop() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = guarded(model, optimizer, policy="skip_batch", total=3)
    with pytest.raises(GuardStoppedError, match=r"3 bad steps altogether \(total\)"), guard:
        programs.plain_loop(model, optimizer, batches(20, bad=(1, 4, 7, 12)))


def test_finite_values_whose_sum_overflows_are_no_failure() -> None:
    model = programs.net()
    model.register_buffer("large", torch.full((8,), 3e38))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with guarded(model, optimizer, policy="stop") as guard:
        for x in batches(4):
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimizer.step()
    assert guard.report.healthy


# -- entering and leaving -----------------------------------------------------------------------


def test_an_exception_of_the_loop_is_its_own() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    made = [*batches(2), "mine"]
    with pytest.raises(TypeError, match="argument 'input'"), guarded(model, optimizer):
        programs.plain_loop(model, optimizer, made)


def test_ctrl_c_is_the_loops_own() -> None:
    model = programs.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(KeyboardInterrupt), guarded(model, optimizer):
        raise KeyboardInterrupt


class Bomb(torch.autograd.Function):
    """Raises in the backward pass."""

    error: type[BaseException] = ValueError

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        raise Bomb.error("in backward")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("where", ["between updates", "backward", "inside the update"])
def test_whatever_ends_the_loop_leaves_its_state_to_the_program(
    where: str, error: type[BaseException]
) -> None:
    def loop(model: Any, optimizer: Any) -> None:
        programs.plain_loop(model, optimizer, batches(2))
        y = model(batches(1)[0])
        if where == "between updates":
            raise error("here")
        if where == "backward":
            Bomb.error = error
            Bomb.apply(y).sum().backward()
        y.sum().backward()
        optimizer.register_step_post_hook(fail)
        optimizer.step()

    def fail(*_: Any) -> None:
        raise error("here")

    runs = []
    for watched in (False, True):
        model = programs.net()
        optimizer = torch.optim.Adam(model.parameters())
        if watched:
            with pytest.raises(error), guarded(model, optimizer, policy="rollback"):
                loop(model, optimizer)
        else:
            with pytest.raises(error):
                loop(model, optimizer)
        runs.append(everything(model, optimizer))
    assert different(*runs) == []


def closure_loop(model: Any, optimizer: Any, data: Any) -> None:
    def closure(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        return loss

    for x in data:
        optimizer.step(functools.partial(closure, x))


@pytest.mark.parametrize("source", [programs.loader, list])
def test_an_update_that_calls_the_model_itself_is_guarded_too(source: Any) -> None:
    made = batches(bad=(1, 17))
    runs = []
    for data in (clean(made, (1, 17)), made):
        model = programs.net()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
        with guarded(model, optimizer, policy="skip_batch") as guard:
            closure_loop(model, optimizer, source(data))
        runs.append(everything(model, optimizer))
    assert guard.report.counts == {"skipped": 2}
    assert different(*runs) == []


def test_a_poisoned_start_is_refused_by_name() -> None:
    model = programs.net()
    model[1].running_var[2] = float("inf")
    with pytest.raises(PoisonedStateError, match=r"buffer 1\.running_var"), guarded(model, None):
        pass


def test_two_guards_at_once_are_refused() -> None:
    model = programs.net()
    with guarded(model, None), pytest.raises(HuntBusyError), guarded(model, None):
        pass


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "skip"}, "skip_batch"),
        ({"every": 0}, "every"),
        ({"limit": True}, "limit"),
        ({"total": 1.5}, "total"),
        ({"scaler": 3}, "scaler"),
    ],
)
def test_arguments_that_cannot_work_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        guarded(programs.net(), None, **options)


def test_a_guard_holds_no_memory_after_it() -> None:
    import gc
    import weakref

    model = programs.net()
    optimizer = torch.optim.Adam(model.parameters())
    with guarded(model, optimizer, policy="rollback") as guard:
        programs.plain_loop(model, optimizer, programs.loader(batches(4)))
    gone = weakref.ref(model[0].weight)
    report = guard.report
    del model, optimizer, guard
    gc.collect()
    assert gone() is None
    assert report.steps == 4
