"""Preflight says what the stories' people were missing, and puts everything back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stories import (
    audio_codec,
    fourier_inpainting,
    localiser,
    resumed_diffusion,
    speech_enhancer,
)
from torch import Tensor, nn

import nanhunt
from nanhunt.core.tensors.stats import fingerprint
from nanhunt.errors import ReportFormatError, UsageError
from nanhunt.records.preflight import Fact, Preflight
from tests.cases.common import inputs, linear, train
from tests.learning import healthy
from tests.learning.book import HEALTHY

assert healthy  # fills HEALTHY
STORIES = [speech_enhancer, audio_codec, fourier_inpainting, localiser, resumed_diffusion]


def preflight(story: Any) -> Preflight:
    built = story.build(broken=True)
    return nanhunt.preflight(built.model, built.step_fn)


def the(facts: Preflight, kind: str) -> Fact:
    (found,) = [fact for fact in facts.facts if fact.kind == kind]
    return found


def line(fact: Fact) -> str:
    assert fact.source is not None
    return fact.source.code


# -- what the people of the stories were missing --------------------------------------------------


def test_the_birthplace_of_complex_half_is_named() -> None:
    birth = the(preflight(speech_enhancer), "complex_half")
    assert birth.severity == "warning"
    assert birth.text == "aten.view_as_complex.default makes ComplexHalf in generator.mask"
    assert line(birth) == "return torch.view_as_complex(pairs.contiguous())"


def test_the_autocast_hidden_in_a_model_file_is_named_with_its_line() -> None:
    (region,) = preflight(speech_enhancer).regions
    assert (region.device, region.dtype, region.enabled, region.times) == (
        "cpu",
        "float16",
        True,
        2,
    )
    assert region.source is not None
    assert Path(region.source.file) == Path(speech_enhancer.__file__)
    assert "torch.autocast(" in region.source.code


def test_an_autocast_from_before_the_step_is_told_as_such() -> None:
    model, x = linear(), inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        facts = nanhunt.preflight(model, train(model, lambda _: model(x).float().pow(2).mean()))
    (region,) = facts.regions
    assert (region.source, region.dtype) == (None, "bfloat16")


def test_the_parameters_are_counted_by_top_module_and_dtype() -> None:
    facts = preflight(speech_enhancer)
    model = speech_enhancer.build(broken=True).model
    total = sum(p.numel() for root in model.values() for p in root.parameters())
    everything, *tops = facts.parameters
    assert (everything.name, everything.total, everything.trainable) == ("", total, total)
    assert everything.dtypes == (("float32", total),)
    assert {top.name for top in tops} == set(model)
    assert sum(top.total for top in tops) == total


def test_the_sum_that_overflows_in_half_is_named_before_anything_is_trained() -> None:
    facts = preflight(audio_codec)
    assert "aten.sum" in the(facts, "not_finite").text
    assert line(the(facts, "half_cast")) == "difference = difference.half()"


def test_the_cast_to_half_in_the_fourier_branch_is_named() -> None:
    facts = preflight(fourier_inpainting)
    assert line(the(facts, "half_cast")) == "mixed = mixed.half()"
    (norm,) = [m for m in facts.modules if m.module == "scales.0.ffc.local_conv.1"]
    assert dict(norm.dtypes).get("float16")


def test_the_parameters_without_gradient_are_named_with_the_line_that_detaches_them() -> None:
    facts = preflight(localiser)
    cut = the(facts, "parameters_detached")
    assert cut.names == ("front.weight", "front.bias")
    assert line(cut) == "mixed = mixed.detach()"
    assert the(facts, "updates").text.startswith("0 optimizer updates")


def test_the_batch_whose_move_is_thrown_away_is_named() -> None:
    thrown = the(preflight(resumed_diffusion), "result_thrown_away")
    assert thrown.severity == "warning"
    assert line(thrown).startswith('batch[key].to("cpu")')


# -- single facts ---------------------------------------------------------------------------------


def facts_of(model: Any, loss_of: Callable[[int], Tensor], **options: Any) -> Preflight:
    return nanhunt.preflight(model, train(model, loss_of), **options)


def test_a_parameter_used_without_gradients_is_named_with_its_line() -> None:
    net, x = nn.Sequential(linear(), linear()), inputs()

    def loss(_: int) -> Tensor:
        with torch.no_grad():
            hidden = net[0](x)
        return net[1](hidden).sum()

    fact = the(facts_of(net, loss), "parameters_no_grad")
    assert fact.severity == "warning"
    assert fact.names == ("0.weight", "0.bias")
    assert line(fact) == "hidden = net[0](x)"


def test_a_functional_model_used_without_gradients_is_named_with_its_line() -> None:
    net, x = nn.ParameterList([torch.randn(4, 4), torch.randn(4, 4)]), inputs()

    def loss(_: int) -> Tensor:
        with torch.no_grad():
            hidden = nn.functional.linear(x, net[0])
        return nn.functional.linear(hidden, net[1]).sum()

    fact = the(facts_of(net, loss), "parameters_no_grad")
    assert fact.names == ("0",)
    assert line(fact) == "hidden = nn.functional.linear(x, net[0])"


def test_averages_of_parameters_are_no_use_of_them() -> None:
    net = nn.ModuleDict({"used": linear(), "unused": linear()})
    copies = {name: p.detach().clone() for name, p in net.named_parameters()}

    def loss(_: int) -> Tensor:
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                copies[name].lerp_(parameter, 0.1)
                (parameter - copies[name]).norm().item()
        return net["used"](inputs()).sum()

    facts = facts_of(net, loss)
    assert the(facts, "parameters_unused").names == ("unused.weight", "unused.bias")
    assert not any(fact.kind == "parameters_no_grad" for fact in facts.facts)


def test_a_detour_through_numpy_or_data_is_a_cut() -> None:
    for cut in (lambda h: torch.tensor(h.detach().numpy()), lambda h: h.data):
        net = nn.Sequential(linear(), linear())
        facts = facts_of(net, lambda _, cut=cut, net=net: net[1](cut(net[0](inputs()))).sum())
        assert the(facts, "parameters_detached").names == ("0.weight", "0.bias")


def test_a_batch_norm_unlike_the_model_around_it_is_named() -> None:
    net, x = nn.Sequential(linear(), nn.BatchNorm1d(4)), inputs()
    net[1].eval()
    fact = the(facts_of(net, lambda _: net(x).pow(2).sum()), "batch_norm_mode")
    assert (fact.severity, fact.names) == ("warning", ("1",))
    net[1].requires_grad_(False)
    fact = the(facts_of(net, lambda _: net(x).pow(2).sum()), "batch_norm_mode")
    assert fact.severity == "info", "frozen on purpose"


def test_parameters_in_two_optimizers_and_replaced_ones_are_named() -> None:
    net, x = nn.Sequential(linear(), linear()), inputs()
    first = torch.optim.SGD(net.parameters(), lr=0.1)
    second = torch.optim.SGD(net[1].parameters(), lr=0.1)

    def step() -> None:
        first.zero_grad()
        net(x).sum().backward()
        first.step()
        second.step()

    assert the(nanhunt.preflight(net, step), "parameters_in_two_optimizers").names == (
        "1.weight",
        "1.bias",
    )
    net[1] = linear()
    assert the(nanhunt.preflight(net, step), "parameters_replaced").severity == "warning"


def test_a_plain_step_of_scaled_gradients_is_a_warning() -> None:
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def step() -> None:
        scaler.scale(model(x).sum()).backward()
        optimizer.step()

    facts = nanhunt.preflight(model, step)
    assert the(facts, "plain_step_with_scaler").severity == "warning"
    assert the(facts, "loss_scale").text == "GradScaler at 4"


def test_a_result_near_the_end_of_its_dtype_is_a_warning() -> None:
    model, x = linear(), inputs()
    facts = facts_of(model, lambda _: ((model(x) * 0).half() + 30000).float().sum())
    assert "within a factor of four" in the(facts, "near_overflow").text


def test_only_the_operation_that_overflows_is_named_and_no_memory_that_nobody_wrote() -> None:
    model, x = linear(), inputs()

    def loss(_: int) -> Tensor:
        half = (model(x) * 0).half() + 60000
        torch.empty(64, dtype=torch.float16).fill_(float("inf"))
        torch.empty_like(half)
        return (half * 2).abs().float().sum()

    fact = the(facts_of(model, loss), "not_finite")
    assert "aten.mul" in fact.text
    grown = the(
        facts_of(model, lambda _: (model(x).half() + 100).exp_().float().sum()), "not_finite"
    )
    assert "aten.exp_" in grown.text


def test_the_loss_scale_is_that_at_the_start() -> None:
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    def step() -> None:
        scaler.scale(model(x).pow(2).sum()).backward()
        scaler.step(optimizer)
        scaler.update()

    facts = nanhunt.preflight(model, step)
    assert the(facts, "loss_scale").text == f"GradScaler at {2.0**127:g}"
    assert "1 skipped by GradScaler" in the(facts, "updates").text


def test_a_step_without_backward_is_a_warning() -> None:
    model, x = linear(), inputs()
    fact = the(nanhunt.preflight(model, lambda: model(x).sum().detach()), "no_backward")
    assert "has no graph" in fact.text


# -- what is not finite ---------------------------------------------------------------------------


def not_finite(facts: Preflight) -> dict[tuple[str, str], tuple[str, ...]]:
    """Names of what is said to be bad, by kind and by when it was."""
    found = [f for f in facts.facts if f.kind.endswith("_not_finite")]
    assert all(f.severity == "warning" for f in found)
    return {(f.kind, f.text.rpartition("Inf) ")[2]): f.names for f in found}


BEFORE, IN, AFTER = "before the step", "in the step", "after the step, and finite before it"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_bad_before_the_step_is_named(value: float) -> None:
    net, x = nn.Sequential(linear(), nn.BatchNorm1d(4)), inputs()
    net.register_buffer("codebook", torch.ones(3))
    net.register_buffer("mask", torch.full((3,), float("-inf")))
    net[1].running_var[1] = net.codebook[0] = value
    step = train(net, lambda _: net(x).pow(2).sum())
    expected = ("codebook", "1.running_var")
    assert not_finite(nanhunt.preflight(net, step)) == {("buffer_not_finite", BEFORE): expected}

    model = linear()
    model.weight.data[0, 0] = value
    facts = facts_of(model, lambda _: model(x).clamp(-1, 1).nan_to_num().sum())
    assert not_finite(facts)["parameter_not_finite", BEFORE] == ("weight",)
    assert facts.warnings


def test_negative_infinity_in_statistics_is_no_mask() -> None:
    net, x = nn.Sequential(linear(), nn.BatchNorm1d(4)), inputs()
    net[1].running_mean[0] = float("-inf")
    facts = facts_of(net, lambda _: net(x).pow(2).sum())
    assert not_finite(facts) == {("buffer_not_finite", BEFORE): ("1.running_mean",)}


def test_a_bad_optimizer_state_is_named() -> None:
    model, x = linear(), inputs()
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        model(x).pow(2).sum().backward()
        optimizer.step()

    step()
    optimizer.state[model.bias]["exp_avg_sq"][0] = float("inf")
    found = not_finite(nanhunt.preflight(model, step))
    assert found == {("state_not_finite", BEFORE): ("optimizer.state[bias].exp_avg_sq",)}


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.Rprop])
def test_gradients_that_go_bad_are_named_though_the_step_forgets_them(optimizer: Any) -> None:
    model, x = linear(), inputs()
    made = optimizer(model.parameters(), lr=0.01)

    def step() -> None:
        (model(x) * 0).abs().pow(0.5).sum().backward()  # finite, with a slope that is not
        made.step()
        made.zero_grad()

    found = not_finite(nanhunt.preflight(model, step))
    assert found["gradient_not_finite", IN] == ("weight", "bias")
    assert ("loss_not_finite", IN) not in found
    if optimizer is not torch.optim.Rprop:  # that one takes the sign alone
        assert found["parameter_not_finite", AFTER] == ("weight", "bias")


def test_gradients_that_wait_for_an_update_and_a_bad_loss_are_named() -> None:
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        (model(x) * 0).log().sum().backward()

    found = not_finite(nanhunt.preflight(model, step, optimizer=optimizer))
    assert found == {
        ("loss_not_finite", IN): ("loss",),
        ("gradient_not_finite", IN): ("weight", "bias"),
    }


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bad", [False, True])
def test_gradients_that_only_the_loss_scale_makes_overflow_are_no_warning(
    fused: bool, bad: bool
) -> None:
    model, x = linear(), inputs()
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    def step() -> None:
        optimizer.zero_grad()
        loss = model(x).pow(2).sum()
        loss = loss + (model(x) * 0).abs().pow(0.5).sum() if bad else loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    facts = nanhunt.preflight(model, step)
    assert "1 skipped" in the(facts, "updates").text
    expected = {("gradient_not_finite", IN): ("weight", "bias")} if bad else {}
    assert not_finite(facts) == expected
    assert scaler.get_scale() == 2.0**127


# -- look-alikes, manners -------------------------------------------------------------------------

# These change nothing that a warning is for; what they do is told as plain facts.
CALM = [
    "a_frozen_backbone",
    "a_backbone_left_out_of_the_optimizer",
    "a_generator_and_a_discriminator",
    "accumulation_over_four",
    "a_sparse_embedding_of_which_little_is_used",
    "a_branch_that_begins_at_zero",
    "momentum_with_gradients_zeroed_in_place",
    "several_losses_before_one_update",
    "an_update_by_hand",
]


@pytest.mark.parametrize("name", CALM)
def test_a_healthy_program_gets_no_warning(name: str) -> None:
    model, step, options = HEALTHY[name]()
    facts = nanhunt.preflight(model, step, **options)
    assert facts.warnings == ()
    assert str(facts).startswith("✓ Preflight: nothing to worry about")


def test_tied_weights_count_once() -> None:
    net = nn.Sequential(linear(), linear())
    net[1].weight = net[0].weight
    x = inputs()
    facts = facts_of(net, lambda _: net(x).sum())
    assert facts.parameters[0].total == 16 + 4 + 4
    assert facts.warnings == ()


def state_of(program: Any) -> list[Any]:
    roots = program.model.values() if isinstance(program.model, dict) else [program.model]
    tensors = [t for root in roots for t in (*root.parameters(), *root.buffers())]
    grads = [t.grad is None for t in tensors]
    return [fingerprint(t.detach()) for t in tensors] + grads + [fingerprint(torch.get_rng_state())]


@pytest.mark.parametrize("story", STORIES)
def test_everything_is_put_back_and_the_facts_survive_json(story: Any) -> None:
    program, twin = story.build(broken=True), story.build(broken=True)
    before = state_of(program)
    facts = nanhunt.preflight(program.model, program.step_fn)
    assert state_of(program) == before
    assert Preflight.from_dict(facts.to_dict()) == facts
    for _ in range(2):  # optimizers, scalers, generators and counters stand where they stood
        program.step_fn()
        twin.step_fn()
    assert state_of(program)[:-1] == state_of(twin)[:-1]


def test_an_exception_of_the_step_stays_its_own_and_everything_is_put_back() -> None:
    model, x = linear(), inputs()
    before = [fingerprint(p.detach()) for p in model.parameters()]

    def step() -> None:
        with torch.no_grad():
            model.weight.add_(model(x).sum())
        raise ValueError("the user's own")

    with pytest.raises(ValueError, match="the user's own"):
        nanhunt.preflight(model, step)
    assert [fingerprint(p.detach()) for p in model.parameters()] == before


def test_without_room_to_put_everything_back_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nanhunt.core.snapshot.copies._free_bytes", lambda _: 1)
    model, x = linear(), inputs()
    before = [fingerprint(p.detach()) for p in model.parameters()]
    with pytest.raises(UsageError, match="put everything back"):
        nanhunt.preflight(model, train(model, lambda _: model(x).sum()))
    assert [fingerprint(p.detach()) for p in model.parameters()] == before


def test_a_hunt_goes_on_as_if_no_preflight_had_been() -> None:
    broken = speech_enhancer.build(broken=True)
    nanhunt.preflight(broken.model, broken.step_fn)
    report = nanhunt.hunt(broken.model, broken.step_fn, steps=20, progress=False, trials=False)
    assert report.finding is not None
    assert report.finding.step == 12


def test_the_text_fits_and_the_page_runs_no_script(tmp_path: Path) -> None:
    facts = preflight(speech_enhancer)
    lines = str(facts).splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    facts.to_html(tmp_path / "preflight.html")
    page = (tmp_path / "preflight.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "1 thing to look at" in page


def test_what_is_no_preflight_is_refused() -> None:
    with pytest.raises(ReportFormatError, match=r"not a nanhunt preflight"):
        Preflight.from_dict({"format": "nanhunt.report", "version": 1})
