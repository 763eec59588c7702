"""What was seen of a step is told: bad values are placed, undone whole, never explained away."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import nanhunt
from nanhunt.records.report import Finding

BAD_AT = 3
Step = Callable[[], Tensor]


def hunted(model: nn.Module, step: Step, steps: int = 8) -> nanhunt.Report:
    return nanhunt.hunt(model, step, steps=steps, progress=False, trials=False)


def found(model: nn.Module, step: Step, steps: int = 8) -> Finding:
    finding = hunted(model, step, steps).finding
    assert finding is not None
    return finding


def line_of(finding: Finding) -> str:
    assert finding.source is not None
    return finding.source.code


def linear(inputs: int = 4) -> tuple[nn.Linear, torch.optim.SGD]:
    torch.manual_seed(0)
    model = nn.Linear(inputs, 1)
    return model, torch.optim.SGD(model.parameters(), lr=1e-3)


# -- observing a step changes its path --------------------------------------------------------


def validating(bad_from: int) -> tuple[nn.Module, Step]:
    """Trains, then validates through the encoder's fused path, one of whose rows is all padding."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, count = torch.randn(3, 5, 8), itertools.count()

    def step() -> Tensor:
        model.train()
        optimizer.zero_grad()
        model(x).pow(2).mean().backward()
        optimizer.step()
        padding = torch.zeros(3, 5, dtype=torch.bool)
        padding[1] = next(count) >= bad_from
        model.eval()
        with torch.no_grad():
            return model(x, src_key_padding_mask=padding).pow(2).mean()

    return model, step


@pytest.mark.parametrize("bad_from", [0, 2])
def test_a_bad_loss_of_a_fused_path_is_a_finding(bad_from: int) -> None:
    finding = found(*validating(bad_from))
    # The first loss is the one that went backward, the second is that of the validation.
    assert (finding.step, finding.kind, finding.reaches) == (bad_from, "nan", ("loss 2",))


def test_a_bad_loss_of_a_fused_path_is_placed_or_the_replay_says_that_it_took_another() -> None:
    report = hunted(*validating(2))
    finding = report.finding
    assert finding is not None
    in_encoder = finding.op is not None and "transformer_encoder_layer" in finding.op
    assert in_encoder or report.replay.startswith("not_reproduced")


def test_a_step_that_is_healthy_only_under_observation_says_so() -> None:
    """What it does depends on whether a dispatch mode is on."""
    model, optimizer = linear()
    x, count = torch.rand(8, 4), itertools.count()

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        observed = torch.utils._python_dispatch._get_current_dispatch_mode() is not None
        if next(count) >= BAD_AT and not observed:
            loss = (loss * 0).log()
        loss.backward()
        optimizer.step()
        return loss

    report = hunted(model, step)
    assert report.finding is not None
    assert report.finding.step == BAD_AT
    assert report.replay.startswith("not_reproduced: watched operation by operation")
    assert finite(model)


def test_a_returned_loss_is_looked_at_though_its_first_part_went_backward() -> None:
    model, optimizer = linear()
    x, count = torch.rand(8, 4), itertools.count()

    def step() -> Tensor:
        optimizer.zero_grad()
        trained, told = model(x).pow(2).mean(), model(x).detach().mean()
        if next(count) == BAD_AT:
            told = (told * 0).log() * 0
        losses = torch.stack([trained, told])
        losses[0].backward()
        optimizer.step()
        return losses

    finding = found(model, step)
    assert (finding.step, finding.op) == (BAD_AT, "aten.log.default")


# -- programs that differentiate twice --------------------------------------------------------


def test_a_failing_step_of_a_learner_of_learners_is_explained() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    count = itertools.count()

    def step() -> Tensor:
        bad = next(count) == BAD_AT
        optimizer.zero_grad()
        total = torch.zeros(())
        for _ in range(3):
            x, parameters = torch.randn(8, 1), dict(model.named_parameters())
            for _ in range(2):
                inner = (functional_call(model, parameters, (x,)) - x.sin()).pow(2).mean()
                inner = inner + (inner * 0).sqrt() if bad else inner
                slopes = torch.autograd.grad(inner, [*parameters.values()], create_graph=True)
                pairs = zip(parameters.items(), slopes, strict=True)
                parameters = {name: p - 0.1 * slope for (name, p), slope in pairs}
            total = total + (functional_call(model, parameters, (x,)) - x.sin()).pow(2).mean()
        total.backward()
        optimizer.step()
        return total

    finding = found(model, step)
    assert (finding.step, finding.cause) == (BAD_AT, "sqrt_gradient_at_zero")
    assert "(inner * 0).sqrt()" in line_of(finding)


# -- parameters written during forward --------------------------------------------------------


class Quantiser(nn.Module):
    """Moves its codebooks, which are trained as well, towards what they encode."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(8, 4)
        self.codebooks = nn.Parameter(torch.randn(2, 6, 4))
        self.guarded = True

    def forward(self, x: Tensor) -> Tensor:
        z, losses = self.encoder(x), []
        for q in range(2):
            index = torch.cdist(z, self.codebooks[q]).argmin(1)
            picked = self.codebooks[q][index]
            losses.append((picked - z.detach()).pow(2).mean() + (z - picked.detach()).pow(2).mean())
            with torch.no_grad():
                used = nn.functional.one_hot(index, 6).float()
                count = used.sum(0).unsqueeze(1)
                count = count.clamp(min=1) if self.guarded else count
                mean = (used.T @ z) / count
                self.codebooks.data[q] = 0.9 * self.codebooks.data[q] + 0.1 * mean
        return torch.stack(losses).sum()


def quantising() -> tuple[Quantiser, torch.optim.Adam, Step]:
    torch.manual_seed(0)
    model = Quantiser()
    optimizer, count = torch.optim.Adam(model.parameters(), lr=0.01), itertools.count()

    def step() -> Tensor:
        model.guarded = next(count) != BAD_AT
        optimizer.zero_grad()
        loss = model(torch.randn(4, 8))
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step


def finite(model: nn.Module) -> bool:
    return all(bool(p.isfinite().all()) for p in model.parameters())


def test_a_parameter_written_during_forward_is_undone() -> None:
    model, _, step = quantising()
    assert hunted(model, step).finding is not None
    assert finite(model)


def test_a_parameter_spoiled_during_forward_is_not_blamed_on_a_file() -> None:
    model, _, step = quantising()
    finding = found(model, step)
    assert finding.phase == "forward"
    assert "(used.T @ z) / count" in line_of(finding)


def test_a_guard_skips_a_step_that_spoils_a_parameter_during_forward() -> None:
    model, optimizer, step = quantising()
    with nanhunt.guard(model, optimizer, policy="skip_batch", bundle=None) as guard:
        for _ in range(6):
            step()
    assert guard.report.counts == {"skipped": 1}
    assert finite(model)


# -- gradients that nobody would see ----------------------------------------------------------


def hiding(scaled: bool, unscaled: bool, bad_from: int) -> tuple[nn.Module, Step]:
    """Puts its gradients through nan_to_num; those from `bad_from` on are not finite."""
    model, optimizer = linear()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=scaled)
    x, count = torch.randn(8, 4), itertools.count()

    def step() -> Tensor:
        optimizer.zero_grad()
        y = model(x).pow(2)
        if next(count) >= bad_from:
            y = y + (y * 0).sqrt()
        scaler.scale(y.mean()).backward()
        if unscaled:
            scaler.unscale_(optimizer)
        for parameter in model.parameters():
            assert parameter.grad is not None
            torch.nan_to_num(parameter.grad, nan=0.0, posinf=0.0, neginf=0.0, out=parameter.grad)
        scaler.step(optimizer)
        scaler.update()
        return y.mean()

    return model, step


@pytest.mark.parametrize(
    ("scaled", "unscaled", "bad_from"),
    [
        (False, False, BAD_AT),
        (False, False, 0),
        (True, False, 0),
        (True, False, BAD_AT),
        (True, True, 0),
        (True, True, BAD_AT),
    ],
)
def test_gradients_hidden_by_nan_to_num_are_found_in_their_step(
    scaled: bool, unscaled: bool, bad_from: int
) -> None:
    finding = found(*hiding(scaled, unscaled, bad_from), steps=24)
    assert (finding.step, finding.cause) == (bad_from, "sqrt_gradient_at_zero")
    assert "(y * 0).sqrt()" in line_of(finding)


def test_scaled_gradients_that_overflow_before_nan_to_num_are_no_finding() -> None:
    model, optimizer = linear()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120, growth_interval=1000)
    x, count = torch.randn(8, 4), itertools.count()

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) - 1e5).pow(2).mean()
        scaler.scale(loss).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            torch.nan_to_num(parameter.grad, posinf=0.0, neginf=0.0, out=parameter.grad)
        scaler.step(optimizer)
        scaler.update(2.0 if next(count) == 3 else None)
        return loss

    assert hunted(model, step).findings == ()


def test_a_loss_that_is_returned_in_another_shape_is_watched_as_ever() -> None:
    model, optimizer = linear()

    def step() -> dict[str, Tensor]:
        optimizer.zero_grad()
        loss = model(torch.rand(8, 4)).pow(2).mean()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach().view(1)}

    assert nanhunt.hunt(model, step, steps=24, progress=False).findings == ()
