"""Training loops that do not learn, each with the reason, and healthy ones that look like them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.cases.common import inputs

Program = tuple[Any, Callable[[], Any], dict[str, Any]]
BROKEN: dict[str, tuple[Callable[[], Program], str]] = {}
HEALTHY: dict[str, Callable[[], Program]] = {}


def broken(cause: str) -> Callable[[Callable[[], Program]], Callable[[], Program]]:
    def add(build: Callable[[], Program]) -> Callable[[], Program]:
        BROKEN[build.__name__] = (build, cause)
        return build

    return add


def healthy(build: Callable[[], Program]) -> Callable[[], Program]:
    HEALTHY[build.__name__] = build
    return build


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


class Data:
    """Batches that differ from call to call, and a target that can be learned."""

    def __init__(self) -> None:
        self.noise = torch.Generator().manual_seed(3)

    def batch(self) -> tuple[Tensor, Tensor]:
        x = torch.randn(6, 4, generator=self.noise)
        return x, torch.stack([x[:, 0] + x[:, 1], x[:, 2]], 1)


def loss_of(model: nn.Module, data: Data) -> Tensor:
    x, y = data.batch()
    return (model(x) - y).pow(2).mean()


def sgd(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.05, **options})


# -- broken -----------------------------------------------------------------------------------


@broken("optimizer_never_steps")
def nobody_steps() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        return loss.detach()

    return model, step, {"optimizer": optimizer}


@broken("optimizer_never_steps")
def an_accumulation_count_that_is_never_reached() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    count = {"calls": 0, "micro": 0}

    def step() -> Tensor:
        count["calls"] += 1
        loss = loss_of(model, data)
        (loss / 4).backward()
        count["micro"] += 1
        if count["calls"] % 3 == 0:
            count["micro"] = 0
        if count["micro"] == 4:
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    return model, step, {}


@broken("optimizer_seldom_steps")
def a_check_that_leaves_most_updates_out() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    count = {"calls": 0}

    def step() -> Tensor:
        count["calls"] += 1
        optimizer.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        if count["calls"] in (4, 5, 19, 33):
            optimizer.step()
        return loss.detach()

    return model, step, {}


@broken("optimizer_seldom_steps")
def a_loop_that_skips_backward_for_most_batches() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    count = {"calls": 0}

    def step() -> Tensor:
        count["calls"] += 1
        loss = loss_of(model, data)
        if count["calls"] in (1, 2, 12, 25):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.detach()

    return model, step, {}


@broken("learning_rate_zero")
def a_learning_rate_of_zero() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model, lr=0.0)
    return model, plain(model, data, optimizer), {}


@broken("learning_rate_zero")
def a_schedule_that_is_zero_from_the_first_step() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0 // (n + 1))
    return model, plain(model, data, optimizer, scheduler), {}


@broken("learning_rate_not_the_schedulers")
def a_scheduler_of_another_optimizer() -> Program:
    model, data = net(), Data()
    old = sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(old, 10)
    optimizer = sgd(model)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            scheduler._step_count = 2  # no warning about the order
        scheduler.step()
        return loss.detach()

    return model, step, {"optimizer": optimizer}


@broken("learning_rate_not_the_schedulers")
def a_rate_that_is_overwritten() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.011
        optimizer.step()
        scheduler.step()
        return loss.detach()

    return model, step, {}


@broken("gradients_never_zeroed")
def gradients_that_add_up_for_ever() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model, lr=1e-4)

    def step() -> Tensor:
        loss = loss_of(model, data)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step, {}


@broken("loss_detached")
def a_loss_that_was_detached_and_switched_on_again() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, data).detach().requires_grad_()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step, {}


class TwoBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.front, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tensor(self.front(x).detach().numpy()))


@broken("parameters_without_gradient")
def a_branch_that_goes_through_numpy() -> Program:
    model, data = TwoBranches(), Data()
    return model, plain(model, data, sgd(model)), {}


@broken("gradients_all_zero")
def units_that_are_all_dead() -> Program:
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), Data()
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    return model, plain(model, data, sgd(model)), {}


@broken("parameters_never_change")
def a_layer_replaced_after_the_optimizer_was_built() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    model[2] = nn.Linear(8, 2)

    def step() -> Tensor:
        model.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step, {}


@broken("parameters_never_change")
def a_learning_rate_too_small_for_a_float() -> Program:
    model, data = net(), Data()
    return model, plain(model, data, sgd(model, lr=1e-30)), {}


@broken("accumulation_wrong_divisor")
def divided_by_four_but_updated_every_eighth_time() -> Program:
    return accumulating(4, 8)


@broken("accumulation_wrong_divisor")
def divided_by_four_but_updated_every_time() -> Program:
    return accumulating(4, 1)


@broken("scale_changed_during_accumulation")
def a_scale_updated_between_micro_batches() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model, lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    count = {"calls": 0}

    def step() -> Tensor:
        count["calls"] += 1
        loss = loss_of(model, data)
        scaler.scale(loss / 4).backward()
        scaler.update(8.0 * (1 + count["calls"] % 4))
        if count["calls"] % 4 == 0:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        return loss.detach()

    return model, step, {}


@broken("loss_scaled_twice")
def a_loss_that_goes_through_the_scaler_twice() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model, lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, data)
        scaler.scale(scaler.scale(loss)).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return model, step, {}


@broken("loss_never_changes")
def a_loss_that_does_not_see_the_model() -> Program:
    model, x = net(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=0.01)

    def step() -> Tensor:
        optimizer.zero_grad()
        out = model(x)
        loss = (out - out.detach()).sum() + 1.921642
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step, {}


def plain(model: nn.Module, data: Data, optimizer: Any, scheduler: Any = None) -> Any:
    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        return loss.detach()

    return step


def accumulating(divisor: int, every: int) -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    count = {"calls": 0}

    def step() -> Tensor:
        count["calls"] += 1
        loss = loss_of(model, data)
        (loss / divisor).backward()
        if count["calls"] % every == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    return model, step, {}


def clipping(before: bool) -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, data)
        scaler.scale(loss).backward()
        if not before:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return model, step, {}


# -- healthy ----------------------------------------------------------------------------------


@healthy
def accumulation_over_four() -> Program:
    return accumulating(4, 4)


@healthy
def accumulation_over_sixteen() -> Program:
    return accumulating(16, 16)


@healthy
def a_warm_up_from_zero() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: min(n / 20, 1.0))
    return model, plain(model, data, optimizer, scheduler), {}


@healthy
def a_cosine_that_ends_at_zero() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    return model, plain(model, data, optimizer, scheduler), {}


@healthy
def warm_up_and_plateau_beside_each_other() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
    later = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, later], [5])

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        optimizer.step()
        both.step()
        return loss.detach() + 0 * warm.last_epoch + 0 * later.last_epoch

    return model, step, {}


@healthy
def a_frozen_backbone() -> Program:
    model, data = net(), Data()
    model[0].requires_grad_(False)
    optimizer = torch.optim.Adam(model[2].parameters(), lr=0.01)
    return model, plain(model, data, optimizer), {}


@healthy
def a_backbone_left_out_of_the_optimizer() -> Program:
    model, data = net(), Data()
    optimizer = torch.optim.Adam(model[2].parameters(), lr=0.01)

    def step() -> Tensor:
        model.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step, {}


@healthy
def a_generator_and_a_discriminator() -> Program:
    torch.manual_seed(0)
    gen, disc, data = (
        nn.Linear(4, 4),
        nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)),
        Data(),
    )
    first = torch.optim.Adam(gen.parameters(), lr=1e-3)
    second = torch.optim.Adam(disc.parameters(), lr=1e-3)

    def step() -> dict[str, Tensor]:
        x, _ = data.batch()
        second.zero_grad()
        nn.functional.softplus(-disc(x)).mean().backward()
        fake = gen(torch.randn(6, 4, generator=data.noise))
        nn.functional.softplus(disc(fake.detach())).mean().backward()
        second.step()
        first.zero_grad()
        loss = nn.functional.softplus(-disc(fake)).mean()
        loss.backward()
        first.step()
        return {"loss": loss.detach()}

    return {"gen": gen, "disc": disc}, step, {}


@healthy
def alternating_halves() -> Program:
    torch.manual_seed(0)
    gen, disc, data = nn.Linear(4, 4), nn.Linear(4, 1), Data()
    first = torch.optim.Adam(gen.parameters(), lr=1e-3)
    second = torch.optim.Adam(disc.parameters(), lr=1e-3)
    count = {"calls": 0}

    def step() -> Tensor:
        count["calls"] += 1
        x, _ = data.batch()
        first.zero_grad()
        second.zero_grad()
        if count["calls"] % 5 == 0:
            loss = -disc(gen(x)).mean()
            loss.backward()
            first.step()
        else:
            loss = disc(gen(x).detach()).mean() - disc(x).mean() + disc.weight.pow(2).sum()
            loss.backward()
            second.step()
        return loss.detach()

    return {"gen": gen, "disc": disc}, step, {}


@healthy
def a_sparse_embedding_of_which_little_is_used() -> Program:
    torch.manual_seed(0)
    model, noise = nn.Embedding(500, 4, sparse=True), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.01)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = (model(torch.randint(0, 500, (5,), generator=noise)) - 1).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step, {}


class LowRank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.base = nn.Linear(4, 2).requires_grad_(False)
        self.down, self.up = nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


@healthy
def a_branch_that_begins_at_zero() -> Program:
    model, data = LowRank(), Data()
    chosen = [p for p in model.parameters() if p.requires_grad]
    return model, plain(model, data, torch.optim.Adam(chosen, lr=0.01)), {}


@healthy
def a_scaler_that_skips_its_first_steps() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18)

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = loss_of(model, data)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return model, step, {}


@healthy
def accumulation_with_a_scaler() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=2)
    count = {"calls": 0}

    def step() -> Tensor:
        count["calls"] += 1
        loss = loss_of(model, data)
        scaler.scale(loss / 2).backward()
        if count["calls"] % 2 == 0:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        return loss.detach()

    return model, step, {}


@healthy
def clipping_after_unscaling() -> Program:
    return clipping(before=False)


@healthy
def momentum_with_gradients_zeroed_in_place() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model, momentum=0.9)

    def step() -> Tensor:
        loss = loss_of(model, data)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return loss.detach()

    return model, step, {}


@healthy
def a_closure_for_l_bfgs() -> Program:
    model, data = net(), Data()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    x, y = data.batch()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) - y).pow(2).mean()
        loss.backward()
        return loss

    return model, lambda: optimizer.step(closure).detach(), {"optimizer": optimizer}


@healthy
def an_update_by_hand() -> Program:
    model, data = net(), Data()

    def step() -> Tensor:
        loss = loss_of(model, data)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.01 * parameter.grad)
        return loss.detach()

    return model, step, {"optimizer": ()}


class WithTeacher(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = net(), net()
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            soft = self.teacher(x)
        return self.student(x) + 0.1 * soft


@healthy
def a_teacher_and_a_head_for_later() -> Program:
    model, data = WithTeacher(), Data()
    model.teacher.requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(
                model.teacher.parameters(), model.student.parameters(), strict=True
            ):
                old.lerp_(new, 0.05)
        return loss.detach()

    return model, step, {}


@healthy
def several_losses_before_one_update() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)

    def step() -> Tensor:
        optimizer.zero_grad()
        first, second = loss_of(model, data), loss_of(model, data)
        first.backward()
        second.backward()
        optimizer.step()
        return (first + second).detach()

    return model, step, {}
