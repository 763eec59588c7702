"""Programs for causes that the other files do not show, and look-alikes of common ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.cases.book import failing, healthy
from tests.cases.common import in_module, inputs, linear, train


@failing(
    kind="poisoned_state",
    phase="state",
    tensor="gradient of weight",
    step=0,
    cause="gradient_left_bad",
)
def a_gradient_that_was_never_zeroed():
    model, x = linear(), inputs()
    model.weight.grad = torch.full_like(model.weight, float("nan"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        model(x).sum().backward()
        optimizer.step()

    return model, step


@failing(kind="nan", phase="forward", module="norm", step=0, cause="negative_running_variance")
def a_running_variance_that_is_negative():
    net = nn.Sequential()
    net.linear, net.norm = linear(), nn.BatchNorm1d(4)
    net.norm.running_var[1] = -0.5
    net.norm.eval()
    x = inputs()
    return net, train(net, lambda _: net(x).sum())  # culprit


@failing(kind="nan", phase="forward", module="bad", step=0, cause="written_constant")
def a_constant_that_is_nan():
    return in_module(lambda x: x.masked_fill(x > 0, float("nan")))  # culprit


@failing(kind="nan", phase="optimizer", module=None, step=0, cause="negative_second_moment")
def a_second_moment_that_is_negative():
    model, x = linear(), inputs()
    optimizer = torch.optim.Adam(model.parameters(), foreach=False)
    step = train(model, lambda _: model(x).sum(), optimizer)
    step()
    optimizer.state[model.weight]["exp_avg_sq"].fill_(-1e3)
    return model, step


@failing(kind="inf", phase="forward", module=None, step=7, cause="scaled_gradients_stepped")
def an_optimizer_stepped_without_its_scaler():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()  # culprit
        scaler.scale(loss).backward()
        optimizer.step()
        return loss.detach()

    return model, step


@failing(
    kind="nan",
    phase="optimizer",
    module=None,
    step=0,
    cause="optimizer_epsilon_lost",
)
def adam_with_half_parameters_and_its_usual_epsilon():
    model, x = linear().half(), inputs().half()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) * 0).float().sum()
        loss.backward()
        optimizer.step()  # culprit
        return loss.detach()

    return model, step


@failing(kind="inf", phase="forward", module=None, step=102, steps=200, cause="exploding_update")
def a_learning_rate_raised_after_ninety_good_steps():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def loss(n: int) -> Tensor:
        optimizer.param_groups[0]["lr"] = 0.01 if n < 90 else 50.0
        return model(x).pow(2).mean()  # culprit

    return model, train(model, loss, optimizer)


@failing(kind="inf", phase="forward", module=None, step=12, steps=40, cause="exploding_update")
def a_learning_rate_that_is_too_high():
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
    return model, train(model, lambda _: model(x).pow(2).mean(), optimizer)  # culprit


@failing(
    kind="inf",
    phase="backward",
    module="bad",
    node="SqrtBackward0",
    step=0,
    cause="epsilon_lost_in_gradient",
)
def an_epsilon_in_half_under_a_root():
    return in_module(lambda x: ((x * 0).half() + 1e-8).sqrt().float())  # culprit


@failing(
    kind="nan", phase="backward", module="bad", node="LogBackward0", step=0,
    cause="log_gradient_at_zero",
)  # fmt: skip
def a_logarithm_clamped_too_late():
    return in_module(lambda x: (x * 0).log().clamp(min=-10))  # culprit


@failing(
    kind="inf", phase="backward", module="bad", node="DivBackward0", step=0,
    cause="division_gradient_at_zero",
)  # fmt: skip
def a_quotient_clamped_too_late():
    return in_module(lambda x: (x.abs() / (x * 0)).tanh())  # culprit


@failing(
    kind="nan", phase="backward", module="bad", node="HypotBackward0", step=0,
    cause="hypot_gradient_at_zero",
)  # fmt: skip
def a_length_at_the_origin():
    return in_module(lambda x: torch.hypot(x * 0, x * 0))  # culprit


@failing(
    kind="nan", phase="backward", module=None, node="LinalgQrBackward0", step=0,
    cause="singular_factor",
)  # fmt: skip
def a_factor_of_a_singular_matrix():
    model, x = linear(), inputs(4)

    def loss(_: int) -> Tensor:
        q, r = torch.linalg.qr(torch.ones(4, 4) + 0 * model(x))  # culprit
        return q.sum() + r.sum()

    return model, train(model, loss)


@failing(kind="inf", phase="backward", module=None, step=0, cause="half_gradient_overflow")
def a_loss_multiplied_until_half_gradients_overflow():
    model, x = linear().half(), inputs().half()
    return model, train(model, lambda _: model(x).float().sum() * 2.0**20)  # culprit


@failing(kind="inf", phase="backward", module="bad", step=0, cause="gradient_explosion")
def a_gradient_that_grows_through_time():
    def recur(x: Tensor) -> Tensor:
        state = x * 0
        for _ in range(12):
            state = state * 1e4  # culprit
        return state

    return in_module(recur)


@failing(kind="inf", phase="forward", module="bad", step=0, cause="fft_dc_overflow")
def a_bright_image_in_half_after_its_transform():
    def transform(x: Tensor) -> Tensor:
        image = x.abs().mean() * 0 + torch.full((1, 1, 32, 32), 200.0)
        parts = torch.view_as_real(torch.fft.rfft2(image))
        return parts.half().float()  # culprit

    return in_module(transform)


@failing(kind="nan", phase="forward", module="vq", step=0, cause="dead_codebook_entries")
def codes_that_nothing_is_assigned_to():
    class Quantiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("counts", torch.tensor([3.0, 0.0, 5.0]))
            self.register_buffer("sums", torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]]))

        def forward(self, x: Tensor) -> Tensor:
            codes = self.sums / self.counts[:, None]  # culprit
            return x.sum() * codes.sum()

    net = nn.Sequential()
    net.linear, net.vq = linear(), Quantiser()
    x = inputs()
    return net, train(net, lambda _: net(x).sum())


@failing(kind="inf", phase="forward", module="bad", step=0, cause="power_of_zero")
def zero_to_a_negative_power():
    return in_module(lambda x: (x * 0) ** -1.5)  # culprit


@failing(kind="inf", phase="forward", module="bad", step=0, cause="half_cast_overflow")
def a_cast_beside_a_transform_but_not_of_its_first_bin():
    def transform(x: Tensor) -> Tensor:
        time = torch.arange(64) / 64
        wave = x.mean() * 0 + 1e4 * torch.sin(2 * torch.pi * 8 * time)
        return torch.view_as_real(torch.fft.rfft(wave)).half().float()  # culprit

    return in_module(transform)


@failing(kind="inf", phase="forward", module=None, step=3, cause="float32_overflow")
def one_bad_batch_that_looks_like_an_explosion():
    model, x = linear(), inputs()
    sizes = [1.0, 1.0, 1.0, 1e30]
    return model, train(model, lambda n: (model(x) * sizes[n]).pow(2).mean())  # culprit


@failing(kind="inf", phase="forward", module="bad", step=0, cause="half_matmul_overflow")
def a_product_in_half_that_no_softmax_follows():
    def product(x: Tensor) -> Tensor:
        q = (x.abs() * 50 + 200).half()[None]
        return (torch.bmm(q, q.transpose(1, 2)) * 0.5).float()  # culprit

    return in_module(product)


@failing(kind="inf", phase="forward", module="head", step=0, cause="half_matmul_overflow")
def logits_in_half_that_a_softmax_follows():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = linear(), nn.Linear(4, 3, bias=False).half()
            nn.init.constant_(self.head.weight, 300.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((self.body(x).abs() * 200 + 300).half())  # culprit

    net, x = Net(), inputs()
    return net, train(net, lambda _: net(x).float().softmax(-1).log().sum())


@failing(kind="nan", phase="forward", module="bad", step=0, cause="zero_by_zero")
def a_mask_as_a_buffer_that_leaves_nothing():
    class Bad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            kept = x * self.mask
            return kept / kept.detach().pow(3).mean(-1, keepdim=True).exp().sub(1)  # culprit

    net = nn.Sequential()
    net.linear, net.bad = linear(), Bad()
    x = inputs()
    return net, train(net, lambda _: net(x).sum())


@failing(kind="nan", phase="forward", module="bad", step=0, cause="zero_by_zero")
def a_division_in_float32_whose_epsilon_is_fine_elsewhere():
    def ratio(x: Tensor) -> Tensor:
        zero = x * 0
        return zero / zero + 1e-8  # culprit

    return in_module(ratio)


@failing(kind="inf", phase="forward", module="bad", step=0, cause="half_overflow")
def a_softplus_in_half_that_is_multiplied():
    return in_module(lambda x: (F.softplus(x.half() + 300) * 300).float())  # culprit


@failing(
    kind="nan", phase="forward", module="", op="aten._softmax.default", step=0,
    cause="softmax_fully_masked",
)  # fmt: skip
def padding_that_leaves_a_sentence_no_key():
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(2, 5, 8)
    empty = torch.tensor([[False] * 5, [True] * 5])
    return attention, train(
        attention,
        lambda _: attention(x, x, x, key_padding_mask=empty)[0].sum(),  # culprit
    )


@failing(kind="nan", phase="forward", module="bad", step=0, cause="zero_by_zero")
def a_deviation_of_zero_by_hand():
    def standardise(x: Tensor) -> Tensor:
        x = x * 0
        spread = x.var(-1, keepdim=True).sqrt()
        return (x - x.mean(-1, keepdim=True)) / spread  # culprit

    return in_module(standardise)


@failing(kind="inf", phase="backward", module=None, node="SqrtBackward0", step=0,
         cause="sqrt_gradient_at_zero")  # fmt: skip
def sparse_gradients_at_a_singular_point():
    torch.manual_seed(0)
    model, index = nn.Embedding(10, 4, sparse=True), torch.tensor([1, 2])
    optimizer = torch.optim.SparseAdam(model.parameters())
    loss = lambda _: (model(index) - model(index)).abs().sqrt().sum()  # noqa: E731  # culprit
    return model, train(model, loss, optimizer)


@failing(kind="nan", phase="forward", module=None, step=0, cause="all_targets_ignored")
def a_criterion_as_a_module_with_no_target_left():
    model, x, criterion = linear(), inputs(), nn.CrossEntropyLoss()
    targets = torch.full((3,), -100)
    return model, train(model, lambda _: criterion(model(x), targets))  # culprit


@failing(kind="nan", phase="forward", module=None, step=2, cause="mean_of_nothing")
def a_loss_over_an_empty_mask():
    model, x = linear(), inputs()

    def loss(n: int) -> Tensor:
        mask = torch.full((3, 4), n < 2)
        return (model(x).pow(2) * mask).sum() / mask.sum()  # culprit

    return model, train(model, loss)


@failing(kind="nan", phase="forward", module="bad", step=0, cause="uninitialised_memory")
def memory_that_nobody_wrote():
    def use(x: Tensor) -> Tensor:
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)  # then new memory is filled with NaN
        scratch = torch.empty(3, 4)  # culprit
        torch.use_deterministic_algorithms(before)
        return x + scratch

    return in_module(use)


@healthy()
def guarded_derivatives_at_their_singular_points():
    """PyTorch defines these gradients at 0: nothing to report."""

    def run(x: Tensor) -> Tensor:
        zero = x * 0
        angle = torch.atan2(zero, zero) + torch.complex(zero, zero).abs()
        return angle + zero.norm() + zero.std() + zero.norm(p=3) + torch.cdist(zero, zero).sum()

    return in_module(run)


@healthy()
def a_double_where_around_a_root():
    def root(x: Tensor) -> Tensor:
        zero = (x - x.detach()).abs()
        safe = torch.where(zero > 0, zero, torch.ones_like(zero))
        return torch.where(zero > 0, safe.sqrt(), zero)

    return in_module(root)


@healthy()
def an_epsilon_that_half_precision_holds():
    return in_module(lambda x: (x.half() / (x.half().abs() + 1e-3)).float())
