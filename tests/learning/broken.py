"""Training loops that do not learn, each with the reason."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.cases.common import inputs
from tests.learning.book import Data, Program, accumulating, broken, loss_of, net, plain, sgd


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


class Adapted(nn.Module):
    """A frozen layer with a branch that came after the optimizer."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


@broken("parameters_in_no_optimizer")
def an_optimizer_made_before_the_adapters() -> Program:
    model, data = net(), Data()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model[0] = Adapted(model[0])
    return model, plain(model, data, optimizer), {}


@broken("updates_lost_in_rounding")
def gains_that_bfloat16_holds_still() -> Program:
    torch.manual_seed(0)
    model = nn.Sequential(nn.RMSNorm(4), nn.Linear(4, 2)).bfloat16()
    noise = torch.Generator().manual_seed(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)

    def step() -> Tensor:
        x = torch.randn(6, 4, generator=noise).bfloat16()
        optimizer.zero_grad()
        loss = (model(x) - x[:, :2]).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step, {}


@broken("forwards_without_backward")
def a_backward_after_the_loop_over_batches() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)

    def step() -> Tensor:
        for _ in range(8):
            optimizer.zero_grad()
            loss = loss_of(model, data)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step, {}
