"""A comparison names the first difference of dtype and of value, and acquits what is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stories import speech_enhancer
from torch import Tensor, nn

import nanhunt
from nanhunt.core.snapshot.copies import NoMemoryError
from nanhunt.core.tensors.stats import fingerprint
from nanhunt.errors import ReportFormatError, UsageError
from nanhunt.records.comparison import Comparison, Pair
from tests.cases.common import inputs, train

Program = tuple[nn.Module, Callable[[], Any]]


def program(
    *layers: nn.Module,
    loss: Callable[[Tensor], Tensor] = lambda y: y.pow(2).mean(),
    rows: int = 3,
    seed: int = 1,
) -> Program:
    torch.manual_seed(seed)
    net = nn.Sequential(*layers)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    x = inputs(rows, seed=seed)
    return net, train(net, lambda _: loss(net(x)))


def enhancers() -> tuple[Any, Any]:
    baseline, modified = (speech_enhancer.build(broken=flag) for flag in (False, True))
    return baseline, modified


@pytest.fixture(scope="module")
def enhanced() -> Comparison:
    baseline, modified = enhancers()
    return nanhunt.compare((baseline.model, baseline.step_fn), (modified.model, modified.step_fn))


def test_memory_that_nobody_has_written_is_not_compared() -> None:
    layers = [nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)]
    found = nanhunt.compare(program(*layers), program(*layers))
    ops = [pair.baseline.op for pair in found.pairs if pair.baseline]
    assert "aten.bernoulli_.float" in ops  # it fills what `empty_like` gave
    assert not [op for op in ops if "empty" in op]
    assert {pair.status for pair in found.pairs} == {"identical"}


# -- the speech enhancer --------------------------------------------------------------------------


def test_the_first_difference_of_dtype_is_in_the_mask_network(enhanced: Comparison) -> None:
    first = enhanced.first_dtype
    assert first is not None
    assert first.baseline is not None
    assert first.modified is not None
    assert first.modified.module == "generator.mask.body.0"
    assert (first.baseline.dtype, first.modified.dtype) == ("float32", "float16")
    casts = [p for p in enhanced.pairs if p.status == "only in the modified"]
    assert casts
    assert {p.modified.op for p in casts if p.modified} == {"aten._to_copy.default"}


def test_the_blamed_stft_is_the_same_to_the_bit(enhanced: Comparison) -> None:
    assert enhanced.identical("stft")
    transforms = [p for p in enhanced.pairs if p.baseline and "_fft_r2c" in p.baseline.op]
    assert transforms
    assert {pair.status for pair in transforms} == {"identical"}
    assert "functional.stft" in str(enhanced)


def test_complex_half_shows_as_a_difference_of_dtype(enhanced: Comparison) -> None:
    births = [p for p in enhanced.pairs if p.modified and p.modified.dtype == "complex32"]
    assert births
    assert births[0].modified is not None
    assert births[0].modified.op == "aten.view_as_complex.default"


def test_the_verdict_is_in_the_first_line(enhanced: Comparison) -> None:
    lines = str(enhanced).splitlines()
    assert lines[0] == (
        "△ First difference of dtype: aten.addmm.default in generator.mask.body.0, float32 became "
        "float16"
    )
    assert len(lines) <= 41
    assert max(map(len, lines)) <= 100


def test_the_comparison_survives_json_and_makes_a_page(
    enhanced: Comparison, tmp_path: Path
) -> None:
    assert Comparison.from_dict(enhanced.to_dict()) == enhanced
    enhanced.to_html(tmp_path / "comparison.html")
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "First difference of dtype" in page
    assert "<script" not in page
    with pytest.raises(ReportFormatError, match=r"not a nanhunt comparison"):
        Comparison.from_dict({})


# -- small programs -------------------------------------------------------------------------------


def layers() -> list[nn.Module]:
    return [nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)]


def modified_of(pair: Pair | None) -> Any:
    assert pair is not None
    assert pair.modified is not None
    return pair.modified


def test_the_same_program_twice_shows_no_difference() -> None:
    found = nanhunt.compare(program(*layers()), program(*layers(), seed=2))
    assert (found.first_dtype, found.first_value) == (None, None)
    assert {pair.status for pair in found.pairs} == {"identical"}
    assert str(found).startswith("✓ No difference beyond rounding")


def test_weights_are_shared_and_inputs_as_well() -> None:
    found = nanhunt.compare(program(*layers()), program(*layers(), seed=2))
    assert found.weights_shared == 4
    assert found.weights_unmatched == ()
    assert found.inputs == "shared"


def test_a_changed_epsilon_is_the_first_difference_of_value() -> None:
    one = program(nn.Linear(4, 4), nn.LayerNorm(4, eps=1e-5), nn.Linear(4, 2))
    other = program(nn.Linear(4, 4), nn.LayerNorm(4, eps=1e-2), nn.Linear(4, 2))
    found = nanhunt.compare(one, other)
    assert found.first_dtype is None
    side = modified_of(found.first_value)
    assert (side.op, side.module) == ("aten.native_layer_norm.default", "1")


def test_the_order_of_a_sum_is_rounding() -> None:
    one = program(*layers(), loss=lambda y: (y * y).sum())
    other = program(*layers(), loss=lambda y: (y * y).flip(0).sum())
    found = nanhunt.compare(one, other)
    assert found.first_value is None


def test_an_inserted_layer_is_shown_as_inserted_and_the_rest_is_aligned() -> None:
    one = program(nn.Linear(4, 4), nn.Linear(4, 2))
    other = program(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    found = nanhunt.compare(one, other, rename={"1": "2"})
    added = [p.modified.op for p in found.pairs if p.modified and p.baseline is None]
    assert added == ["aten.tanh.default"]
    assert found.weights_shared == 4
    assert modified_of(found.first_value).module == "2"


def test_a_renamed_module_is_followed_by_a_dict_or_a_function() -> None:
    def named(name: str) -> Program:
        net = nn.Sequential()
        net.add_module(name, nn.Linear(4, 4))
        x = inputs()
        return net, train(net, lambda _: net(x).sum())

    for rename in ({"old": "new"}, lambda name: name.replace("old", "new")):
        found = nanhunt.compare(named("old"), named("new"), rename=rename)
        assert found.weights_shared == 2
        assert found.first_value is None
    assert nanhunt.compare(named("old"), named("new")).weights_unmatched == (
        "new.weight",
        "new.bias",
    )


def test_a_half_in_the_loss_code_is_the_first_difference_of_dtype() -> None:
    found = nanhunt.compare(
        program(*layers(), loss=lambda y: y.exp().sum()),
        program(*layers(), loss=lambda y: y.half().exp().sum()),
    )
    side = modified_of(found.first_dtype)
    assert (side.op, side.module, side.dtype) == ("aten.exp.default", None, "float16")


def test_inputs_of_another_shape_are_said_not_to_be_shared() -> None:
    found = nanhunt.compare(program(*layers()), program(*layers(), rows=5))
    assert found.inputs.startswith("not shared for 1 of 1 calls")


def test_the_order_of_a_sum_is_rounding_in_float64_as_well() -> None:
    def wide(flipped: bool) -> Program:
        torch.manual_seed(1)
        net, x = nn.Linear(8, 8).double(), torch.randn(512, 8, dtype=torch.float64)
        turned = (lambda y: y.flip(0)) if flipped else (lambda y: y)
        return net, train(net, lambda _: turned(net(x)).cumsum(0)[-1].sum())

    found = nanhunt.compare(wide(False), wide(True))
    last = next(p for p in found.pairs if p.baseline and p.baseline.op == "aten.sum.default")
    assert (last.status, found.inputs) == ("rounding", "shared")


def test_inputs_that_the_model_writes_into_are_shared_as_they_came() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(3.0))

    def writing() -> Program:
        net, x = Scaled(4, 4), inputs()
        return net, train(net, lambda _: net(x.clone()).sum())

    found = nanhunt.compare(writing(), writing())
    assert found.inputs == "shared"
    assert {pair.status for pair in found.pairs} == {"identical"}


def test_gradients_flow_through_shared_inputs_into_the_model_before() -> None:
    def adversarial() -> tuple[Any, Callable[[], Any]]:
        torch.manual_seed(0)
        generator, discriminator = nn.Linear(4, 4), nn.Linear(4, 1)
        optimizer = torch.optim.SGD(generator.parameters(), lr=0.1)
        scaler, x = torch.amp.GradScaler("cpu"), torch.ones(2, 4)

        def step() -> None:
            optimizer.zero_grad()
            scaler.scale(discriminator(generator(x)).mean()).backward()
            scaler.step(optimizer)  # raises when the generator has no gradient
            scaler.update()

        return {"generator": generator, "discriminator": discriminator}, step

    found = nanhunt.compare(adversarial(), adversarial())
    assert (found.inputs, found.first_value) == ("shared", None)


# -- manners --------------------------------------------------------------------------------------


def bits(model: Any) -> list[Any]:
    roots = list(model.values()) if isinstance(model, dict) else [model]
    tensors = [t for root in roots for t in (*root.parameters(), *root.buffers())]
    return [fingerprint(t.detach()) for t in tensors] + [t.grad is None for t in tensors]


def test_both_programs_are_put_back_to_the_bit() -> None:
    baseline, modified = enhancers()
    before = bits(baseline.model), bits(modified.model), fingerprint(torch.get_rng_state())
    nanhunt.compare((baseline.model, baseline.step_fn), (modified.model, modified.step_fn))
    assert (
        bits(baseline.model),
        bits(modified.model),
        fingerprint(torch.get_rng_state()),
    ) == before
    twin, other_twin = enhancers()
    for one, other in ((baseline, twin), (modified, other_twin)):
        one.step_fn()
        other.step_fn()
        assert bits(one.model) == bits(other.model), "optimizers and generators as well"


def test_a_step_that_raises_stays_the_users_own_and_both_are_put_back() -> None:
    one, (net, _) = program(*layers()), program(*layers())
    before = bits(net)

    def step() -> None:
        raise ValueError("the user's own")

    with pytest.raises(ValueError, match="the user's own"):
        nanhunt.compare(one, (net, step))
    assert bits(net) == before


def test_what_is_no_program_is_refused() -> None:
    with pytest.raises(UsageError, match="modified must be"):
        nanhunt.compare(program(*layers()), nn.Linear(2, 2))


def test_without_memory_to_put_things_back_nothing_is_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: Any) -> None:
        raise NoMemoryError("no room")

    one, other = program(*layers()), program(*layers(), seed=2)
    before = bits(one[0]), bits(other[0])
    monkeypatch.setattr("nanhunt.core.snapshot.snapshot.check_room", full)
    with pytest.raises(UsageError, match="put everything back: no snapshot"):
        nanhunt.compare(one, other)
    assert (bits(one[0]), bits(other[0])) == before
