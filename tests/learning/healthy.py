"""Training loops that learn, and look like some that do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.learning.book import (
    Data,
    Program,
    accumulating,
    clipping,
    healthy,
    loss_of,
    net,
    plain,
    sgd,
)


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


@healthy
def a_frozen_layer_in_the_optimizer_and_a_part_left_out_of_it() -> Program:
    model, data = net(), Data()
    model[0].requires_grad_(False)
    optimizer = torch.optim.Adam(model[0].parameters(), lr=0.01)
    optimizer.add_param_group({"params": [model[2].weight]})

    def step() -> Tensor:
        model.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step, {}


@healthy
def a_warm_up_in_bfloat16_from_a_small_rate() -> Program:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)).bfloat16()
    noise = torch.Generator().manual_seed(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1e-3 * 1.01**n)

    def step() -> Tensor:
        x = torch.randn(6, 4, generator=noise).bfloat16()
        optimizer.zero_grad()
        loss = (model(x) - x[:, :2]).pow(2).mean()
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss.detach()

    return model, step, {}


@healthy
def a_rollout_that_forgot_no_grad() -> Program:
    model, data = net(), Data()
    optimizer = sgd(model)

    def step() -> Tensor:
        seen = [model(data.batch()[0]).detach().mean() for _ in range(12)]
        optimizer.zero_grad()
        loss = loss_of(model, data) + 0 * torch.stack(seen).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step, {}


@healthy
def an_optimizer_for_each_parameter() -> Program:
    model, data = net(), Data()
    optimizers = [torch.optim.SGD([p], lr=0.05) for p in model.parameters()]

    def step() -> Tensor:
        with torch.no_grad():
            for _ in range(4):
                loss_of(model, data)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.detach()

    return model, step, {}


@healthy
def an_epoch_in_one_step() -> Program:
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


@healthy
def a_memory_that_is_filled_before_the_first_update() -> Program:
    model, data = net(), Data()
    optimizer, count = sgd(model), 0

    def step() -> Tensor | None:
        nonlocal count
        count += 1
        if count <= 45:
            model(data.batch()[0]).argmax()
            return None
        optimizer.zero_grad()
        loss = loss_of(model, data)
        loss.backward()
        optimizer.step()
        return loss

    return model, step, {}


@healthy
def gradients_written_by_hand() -> Program:
    model, data = net(), Data()
    optimizer, weights = sgd(model), list(model.parameters())

    def step() -> Tensor:
        loss = loss_of(model, data)
        for weight, grad in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = grad
        optimizer.step()
        return loss.detach()

    return model, step, {}


class Gained(nn.Module):
    """A normalisation whose gain of 1 moves in steps of 1 / 128 when held in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.RMSNorm(4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x))


@healthy
def half_precision_with_an_optimizer_of_copies() -> Program:
    torch.manual_seed(0)
    model, data = Gained().bfloat16(), Data()
    masters = [p.detach().float().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.AdamW(masters, lr=1e-5)

    def step() -> Tensor:
        model.zero_grad()
        x, y = data.batch()
        loss = (model(x.bfloat16()) - y).float().pow(2).mean()
        loss.backward()
        for master, parameter in zip(masters, model.parameters(), strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
        optimizer.step()
        for master, parameter in zip(masters, model.parameters(), strict=True):
            parameter.data.copy_(master)
        return loss

    return model, step, {}
