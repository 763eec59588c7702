"""Programs with legitimate infinities, NaNs and skipped steps inside: nothing may be found."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.cases.book import healthy
from tests.cases.common import in_module, inputs, linear, train

INF = float("inf")


@healthy()
def additive_causal_mask():
    mask = torch.full((3, 3), -INF).triu(1)
    return in_module(lambda x: (x @ x.t() + mask).softmax(-1))


@healthy()
def masked_fill_then_softmax():
    return in_module(lambda x: x.masked_fill(x > x.mean(), -INF).softmax(-1))


@healthy()
def a_mask_as_a_buffer():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()
            self.register_buffer("mask", torch.full((3, 3), -INF).triu(1))

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            return (y @ y.t() + self.mask).softmax(-1) @ y

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).sum())


@healthy()
def a_mask_written_into_a_buffer_in_the_step():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()
            self.register_buffer("mask", torch.zeros(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            self.mask.copy_(torch.full((3, 3), -INF).triu(1))
            y = self.linear(x)
            return (y @ y.t() + self.mask).softmax(-1) @ y

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).sum())


@healthy()
def scaled_dot_product_attention_with_masks():
    keep = torch.tril(torch.ones(3, 3, dtype=torch.bool))

    def attend(x: Tensor) -> Tensor:
        q = x[None, None]
        first = F.scaled_dot_product_attention(q, q, q, is_causal=True)
        return first + F.scaled_dot_product_attention(q, q, q, attn_mask=keep)

    return in_module(attend)


@healthy()
def attention_with_padded_keys():
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    x = inputs(6, 8).reshape(2, 3, 8)
    padding = torch.tensor([[False, False, True], [False, True, True]])
    return net, train(net, lambda _: net(x, src_key_padding_mask=padding).pow(2).mean())


@healthy()
def logsumexp_over_padding():
    return in_module(lambda x: F.pad(x, (0, 3), value=-INF).logsumexp(-1))


@healthy()
def a_known_hole_in_the_data():
    model = linear()
    x = inputs()
    x[0, 0] = float("nan")
    return model, train(model, lambda _: model(x.nan_to_num(0)).sum())


@healthy()
def a_mean_over_counts_that_may_be_zero():
    def per_bucket(x: Tensor) -> Tensor:
        count = torch.tensor([2.0, 0.0, 1.0])
        with torch.no_grad():
            rate = (torch.tensor([1.0, 0.0, 3.0]) / count).nan_to_num(0)
        return x * rate[:, None]

    return in_module(per_bucket)


@healthy()
def buckets_of_a_logarithm_that_takes_zero():
    distance = torch.arange(4).float()
    bucket = distance.log().clamp(min=0)
    return in_module(lambda x: x * (bucket + distance.log().clamp(0, 2)))


@healthy()
def pooling_with_padding():
    return in_module(lambda x: F.max_pool1d(F.pad(x[None], (1, 1), value=-INF), 2))


@healthy()
def a_safe_double_where():
    def safe(x: Tensor) -> Tensor:
        zero = x * 0
        inner = torch.where(zero > 0, zero, torch.ones_like(zero))
        return torch.where(zero > 0, x / inner, x)

    return in_module(safe)


@healthy()
def logging_a_gradient_norm():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), INF)
        optimizer.step()
        return loss

    return model, step


@healthy()
def a_running_maximum_that_starts_at_minus_infinity():
    best = torch.tensor(-INF)

    def top(x: Tensor) -> Tensor:
        torch.maximum(best, x.detach().max(), out=best)
        return x

    return in_module(top)


@healthy()
def a_placeholder_buffer_nobody_reads():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()
            self.register_buffer("unset", torch.full((3,), float("nan")))
            self.register_buffer("scratch", torch.empty(64).fill_(INF))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).sum())


@healthy()
def fully_masked_rows_that_are_replaced():
    mask = torch.tensor([[True] * 4, [False] * 4, [False] * 4])

    def attend(x: Tensor) -> Tensor:
        with torch.no_grad():
            weights = x.masked_fill(mask, -INF).softmax(-1).nan_to_num(0)
        return x * weights

    return in_module(attend)


@healthy()
def top_k_with_a_fill():
    return in_module(lambda x: x.masked_fill(x < 0, -INF).topk(1).values.clamp(min=0))


@healthy()
def only_targets_that_exist():
    model, x = linear(), inputs()
    target = inputs(seed=3)
    target[0] = float("nan")
    known = ~target.isnan()
    return model, train(model, lambda _: (model(x)[known] - target[known]).pow(2).mean())


@healthy(steps=30)
def warm_up_of_a_grad_scaler():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = model(x).pow(2).mean()
        scaler.scale(loss * 64).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss

    return model, step


@healthy(steps=30)
def warm_up_with_a_fused_optimizer():
    model, x = linear(), inputs()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = model(x).pow(2).mean()
        scaler.scale(loss * 64).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    return model, step


@healthy()
def sparse_embedding():
    torch.manual_seed(0)
    model = nn.Embedding(10, 4, sparse=True)
    index = torch.tensor([1, 2, 3, 2])
    optimizer = torch.optim.SparseAdam(model.parameters())
    return model, train(model, lambda _: model(index).pow(2).sum(), optimizer)


@healthy()
def complex_parameters():
    torch.manual_seed(0)
    model = nn.Linear(4, 4, dtype=torch.complex64)
    x = torch.complex(inputs(), inputs(seed=2))
    return model, train(model, lambda _: model(x).abs().pow(2).mean())


@healthy(steps=9)
def accumulation_frozen_parts_and_a_teacher():
    net, teacher, x = nn.Sequential(linear(), nn.Linear(4, 2)), linear(4, 2), inputs()
    net[0].requires_grad_(False)
    optimizer = torch.optim.AdamW(net[1].parameters(), lr=0.01)
    count = {"calls": 0}

    def step() -> None:
        count["calls"] += 1
        (net(x) - teacher(x).detach()).pow(2).mean().backward()
        if count["calls"] % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                teacher.weight.lerp_(net[1].weight, 0.1)

    return net, step


@healthy()
def a_mask_whose_sign_is_changed():
    def nearest(x: Tensor) -> Tensor:
        mask = torch.full((3, 3), -INF).triu(1)
        distance = torch.cdist(x, x + 1)
        first = (distance - mask).amin(-1) + (-1 * (mask - distance)).amin(-1)
        return first + (-(distance - mask)).softmax(-1).sum(-1)

    return in_module(nearest)


@healthy()
def a_gap_to_a_best_score_that_begins_at_minus_infinity():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear()
            self.register_buffer("best", torch.tensor(-INF))
            self.register_buffer("gap", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            score = -self.linear(x).detach().norm()
            self.gap.copy_(score - self.best)
            if self.gap > 0:
                self.best.copy_(score)
            return self.linear(x)

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).pow(2).mean())
