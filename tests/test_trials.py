"""Remedies: a cure that was reported is one, its code really cures, and nothing is changed."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import math
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from stories import audio_codec, fourier_inpainting, resumed_diffusion, speech_enhancer
from torch import Tensor, nn

import nanhunt
from nanhunt.core.tensors.stats import fingerprint
from nanhunt.core.trials.island import smallest
from nanhunt.core.trials.prove import Prover
from nanhunt.core.trials.widen import modules_in_float32
from nanhunt.records.report import Report, Trial
from tests.cases import test_cases as suite
from tests.cases.book import Case
from tests.cases.common import inputs, linear, train

pytestmark = pytest.mark.filterwarnings(r"ignore:std\(\):UserWarning")

# Causes for which there is no remedy that a replay could show, each with its reason.
WITHOUT_REMEDY = {
    "weights_bad_before": "what the weight was is not known",
    "buffer_bad_before": "what the buffer was is not known",
    "written_constant": "the program says so on purpose",
    "uninitialised_memory": "what was meant to be in it is not known",
    "inf_minus_inf": "which infinity was not meant is not known",
    "zero_times_inf": "which infinity was not meant is not known",
    "buffer_drift": "the drift began many steps before",
    "not_established": "no cause, no remedy",
}
# Programs whose failure no remedy of their cause cures, each with its reason.
INCURABLE = {
    "a_tensor_in_a_closure": "the data are one tensor: there is no other batch",
    "pow_overflows": "a value beyond float32 in its very first step",
    "an_overflow_that_becomes_nan_later": "a value beyond float32 in its very first step",
    "one_bad_batch_that_looks_like_an_explosion": "the batch itself is beyond float32",
    "a_gradient_that_grows_through_time": "the factor is a constant of the program",
    "an_optimizer_of_the_users_own": "its rate is a key that no remedy knows",
    "weight_decay_that_explodes": "the decay, not the rate, is too large",
    "custom_function_backward": "the division is inside a backward",
    # Made finite, but not what they were in the steps before.
    "gradients_that_the_loop_makes_finite_again": "no gradient is left: all of the input is 0",
    "a_loss_that_the_loop_skips": "no gradient is left: all of the input is clamped",
    "log_of_a_negative_late": "no gradient is left: all of the input is clamped",
    "loss_code_outside_the_model": "no gradient is left: all of the input is 0",
    "reciprocal_of_zero": "one over 1e-6, and the loss was at most 2",
    "exp_overflows": "its exponent is beyond 43, and the loss was at most 2",
    "second_of_two_losses": "its exponent is beyond 43, and the loss was at most 1",
    "the_second_moment_overflows": "the loss itself is 1e25",
    "an_update_by_hand": "its own rate makes the next loss 1e7",
    "an_optimizer_stepped_without_its_scaler": "it diverged steps before, from 0.2 to 1e33",
    "a_learning_rate_that_explodes": "it diverged steps before, from 1 to 1e7",
    "a_learning_rate_that_is_too_high": "it diverged steps before, from 0.2 to 1e36",
    "a_learning_rate_raised_after_ninety_good_steps": "it diverged steps before, to 1e36",
}


def report_of(case: Case, **options: Any) -> Report:
    model, step, given = suite.build(case)
    if case.expected and case.expected.get("raises"):
        with pytest.raises(case.expected["raises"]):
            nanhunt.hunt(model, step, steps=case.steps, progress=False, **given, **options)
        report = nanhunt.last_report()
        assert report is not None
        return report
    return nanhunt.hunt(model, step, steps=case.steps, progress=False, **given, **options)


def best(report: Report) -> Trial | None:
    assert report.finding is not None
    trials = report.finding.trials
    return trials[0] if trials and trials[0].cured else None


CURABLE = [
    case
    for case in suite.FAILING
    if case.expected and case.expected["cause"] not in WITHOUT_REMEDY and case.name not in INCURABLE
]


@pytest.mark.parametrize("case", CURABLE, ids=lambda case: case.name)
def test_a_cause_with_a_remedy_is_cured_by_replay_smallest_cure_first(case: Case) -> None:
    report = report_of(case)
    assert report.finding is not None
    trials = report.finding.trials
    assert trials
    assert trials[0].cured
    cures = [trial.invasiveness for trial in trials if trial.cured]
    assert cures == sorted(cures)
    assert all(trial.cured for trial in trials[: len(cures)])


def test_a_program_listed_as_incurable_is_not_cured() -> None:
    for name in INCURABLE:
        cured = best(report_of(suite.CASES[name]))
        assert cured is None, (name, cured)


# -- the code of a cure ---------------------------------------------------------------------------


def changed_module(path: Path, trial: Trial, tmp_path: Path) -> ModuleType:
    """The file with the trial's lines in the place of the old ones, as a module."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first, last = trial.lines
    margin = lines[first - 1][: len(lines[first - 1]) - len(lines[first - 1].lstrip())]
    new = textwrap.indent(textwrap.dedent(trial.snippet), margin).splitlines()
    lines[first - 1 : last] = new
    copy = tmp_path / f"changed_{path.stem}.py"
    text = "\n".join(lines) + "\n"
    ast.parse(text)
    copy.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(copy.stem, copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[copy.stem] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


WITH_CODE = [
    case
    for case in CURABLE
    if case.expected is not None and case.expected["kind"] != "complex_half"
]


@pytest.mark.parametrize("case", WITH_CODE, ids=lambda case: case.name)
def test_the_printed_change_put_into_the_program_by_hand_cures_it(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = best(report_of(case))
    assert trial is not None
    if case.name in NOT_BY_HAND:
        pytest.skip("its change is a line of a loop, or the program ends in its own exception")
    if not trial.snippet:
        pytest.skip("the call stands in no line that could be changed, so none is printed")
    assert case.expected is not None
    if trial.lines:
        monkeypatch.setattr("tests.cases.book.CASES", {})
        module = changed_module(Path(inspect.getfile(case.build)), trial, tmp_path)
        torch.manual_seed(0)
        model, step, *options = getattr(module, case.name)()
    else:
        model, step, *options = case.build()
        space = {"model": model, "torch": torch, **_closure(step)}
        exec(trial.snippet, space)
    given = options[0] if options else {}
    report = nanhunt.hunt(
        model, step, steps=case.expected["step"] + 1, progress=False, trials=False, **given
    )
    numeric = [finding for finding in report.findings if finding.kind != "not_training"]
    assert numeric == []
    COUNTED.add(case.name)


# The change is a line of the loop around the step, which these programs do not have; or the
# program ends in the exception that it is about, before any backward.
NOT_BY_HAND = {
    "a_check_of_the_users_own_raises",
    "an_operation_that_refuses_nan",
    "a_nan_in_a_dict_batch",
    "an_inf_pixel",
    "a_nan_target_in_a_shuffled_loader",
    "a_generator_in_a_closure",
    "the_second_moment_overflows",
    "a_learning_rate_that_explodes",
    "an_optimizer_stepped_without_its_scaler",
    "a_learning_rate_raised_after_ninety_good_steps",
    "a_learning_rate_that_is_too_high",
    "a_gradient_that_was_never_zeroed",
}
COUNTED: set[str] = set()


def test_at_least_fifteen_printed_changes_were_put_in_by_hand() -> None:
    assert len(COUNTED) >= 15


def _closure(step: Any) -> dict[str, Any]:
    """The optimizer and the scaler of a step function, under the names of the printed code."""
    found = {}
    for name, cell in zip(step.__code__.co_freevars, step.__closure__ or (), strict=True):
        value = cell.cell_contents
        if isinstance(value, torch.optim.Optimizer):
            found["optimizer"] = value
        found[name] = value
    return found


# -- the smallest float32 island ------------------------------------------------------------------


@pytest.mark.parametrize("story", [speech_enhancer, fourier_inpainting])
def test_taking_any_module_out_of_the_island_brings_the_failure_back(
    story: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: dict[frozenset[str], str] = {}
    islands: list[frozenset[str]] = []
    original = Prover._island

    def island(prover: Prover) -> Any:
        found = original(prover)
        if found is not None and prover._scene.finding.kind != "complex_half":
            names = ISLANDS[story.__name__]
            islands.append(names)
            for left_out in names:
                rest = tuple(names - {left_out})
                remedy = modules_in_float32(prover._target, rest, prover._scene.optimizers)
                tried[frozenset(rest)] = prover._run(remedy).trouble if rest else "nothing tried"
            remedy = modules_in_float32(prover._target, names, prover._scene.optimizers)
            tried[names] = prover._run(remedy).trouble
        return found

    monkeypatch.setattr(Prover, "_island", island)
    broken = story.build(broken=True)
    report = nanhunt.hunt(broken.model, broken.step_fn, steps=20, progress=False)
    assert report.finding is not None
    (named,) = [t for t in report.finding.trials if "smallest set" in t.note]
    names = islands[0]
    assert named.remedy == f"{', '.join(sorted(names))} in float32"
    assert tried.pop(names) == ""
    assert all(tried.values())


ISLANDS = {
    "stories.speech_enhancer": frozenset(
        {"generator.mask.body.0", "generator.mask.body.2", "generator.mask.head"}
    ),
    "stories.fourier_inpainting": frozenset({"scales.0.ffc", "scales.0.ffc.local_conv.1"}),
}


def test_the_search_for_the_smallest_set_ends_with_nothing_to_spare() -> None:
    needed = {"c", "f"}
    calls = []

    def healthy(chosen: tuple[str, ...]) -> bool:
        calls.append(chosen)
        return needed <= set(chosen)

    assert set(smallest(list("abcdefgh"), healthy)) == needed
    assert len(calls) == len(set(calls)) <= 40


# -- nothing is changed, confirmation, options ----------------------------------------------------


def state_of(model: Any, step: Any) -> list[tuple[int, int]]:
    roots = list(model.values()) if isinstance(model, dict) else [model]
    tensors = [t for root in roots for t in (*root.parameters(), *root.buffers())]
    optimizers = [
        value
        for cell in step.__closure__ or ()
        if isinstance(value := cell.cell_contents, torch.optim.Optimizer)
    ]
    for optimizer in optimizers:
        tensors += [
            v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)
        ]
    return [fingerprint(t.detach()) for t in tensors] + [fingerprint(torch.get_rng_state())]


@pytest.mark.parametrize(
    "story", [speech_enhancer, audio_codec, fourier_inpainting, resumed_diffusion]
)
def test_after_trials_and_confirmation_the_state_is_that_of_a_hunt_without_them(story: Any) -> None:
    ends = []
    for options in ({"trials": False}, {"trials": True, "confirm": 3}):
        broken = story.build(broken=True)
        nanhunt.hunt(broken.model, broken.step_fn, steps=20, progress=False, **options)
        ends.append(state_of(broken.model, broken.step_fn))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("case", CURABLE[::3], ids=lambda case: case.name)
def test_the_state_after_trials_is_that_of_a_hunt_without_them(case: Case) -> None:
    ends = []
    for options in ({"trials": False}, {"trials": True, "confirm": 2}):
        model, step, given = suite.build(case)
        raises = case.expected.get("raises") if case.expected else None
        with pytest.raises(raises) if raises else contextlib.nullcontext():
            nanhunt.hunt(model, step, steps=case.steps, progress=False, **given, **options)
        ends.append(state_of(model, step))
    assert ends[0] == ends[1]


def test_a_cure_that_holds_is_confirmed_by_further_steps() -> None:
    trial = best(report_of(suite.CASES["a_square_in_half_overflows"], confirm=3))
    assert trial is not None
    assert "held for 3 further steps" in trial.note


def test_a_cure_that_does_not_hold_is_none() -> None:
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def loss(n: int) -> Tensor:
        """A root of 0 in step 3; in step 5 something that no root has to do with."""
        zero = (torch.arange(len(x)) != (0 if n == 3 else -1))[:, None]
        return (model(x).pow(2) * zero).sqrt().mean() * (float("inf") if n == 5 else 1)

    report = nanhunt.hunt(model, train(model, loss, optimizer), steps=8, progress=False)
    assert report.finding is not None
    again = [t for t in report.finding.trials if "failed again 2 steps later" in t.note]
    assert again
    assert all(trial.cured is False for trial in report.finding.trials)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_clamp_to_the_domain_is_told_from_its_edge_in_every_dtype(dtype: torch.dtype) -> None:
    model, x = linear().to(dtype), inputs().to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    step = train(model, lambda _: torch.acos(model(x) * 0 + 1).mean(), optimizer)
    report = nanhunt.hunt(model, step, steps=2, progress=False)
    assert report.finding is not None
    assert report.finding.cause == "arc_gradient_at_one"
    (clamped,) = [t for t in report.finding.trials if t.remedy.startswith("clamp the input")]
    assert clamped.cured


def test_without_trials_none_are_made() -> None:
    report = report_of(suite.CASES["log_of_zero"], trials=False)
    assert report.finding is not None
    assert report.finding.cause == "log_of_zero"
    assert report.finding.trials == ()


def test_ctrl_c_during_trials_keeps_the_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Prover, "_try", interrupted)
    report = report_of(suite.CASES["log_of_zero"])
    assert report.interrupted
    assert report.finding is not None
    assert report.finding.cause == "log_of_zero"


def test_the_step_before_is_run_again_with_a_smaller_learning_rate() -> None:
    model, x = linear(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def loss(n: int) -> Tensor:
        optimizer.param_groups[0]["lr"] = 1e21 if n == 3 else 1e-3
        return model(x).pow(2).mean()

    step = train(model, loss, optimizer)
    report = nanhunt.hunt(model, step, steps=10, progress=False)
    assert report.finding is not None
    assert report.finding.step == 4
    ran = [t for t in report.finding.trials if t.loss is not None and math.isfinite(t.loss)]
    assert ran
    assert all("from the step before on" in trial.remedy for trial in ran)
    assert all("finite, but the loss" in trial.note for trial in ran), (
        "1e21 is beyond a smaller rate"
    )


def test_a_module_of_half_parameters_gets_them_back_after_trials() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.low = linear(), linear().half()

        def forward(self, x: Tensor) -> Tensor:
            return (self.low((self.linear(x) * 1e5).half()) * 10).float()

    net, x = Net(), inputs()
    before = {name: (p.dtype, p.data_ptr()) for name, p in net.named_parameters()}
    report = nanhunt.hunt(net, train(net, lambda _: net(x).sum()), steps=2, progress=False)
    assert report.finding is not None
    assert report.finding.trials
    assert {n: (p.dtype, p.data_ptr()) for n, p in net.named_parameters()} == before


def test_trials_end_when_their_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanhunt.core.trials.prove.SECONDS", -1.0)
    report = report_of(suite.CASES["a_square_in_half_overflows"])
    assert report.finding is not None
    assert report.finding.trials
    assert {trial.cured for trial in report.finding.trials} == {None}
    assert all(trial.note.startswith("not run") for trial in report.finding.trials)


def test_trials_that_fail_themselves_leave_the_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Prover, "_try", broken)
    report = report_of(suite.CASES["log_of_zero"])
    assert report.finding is not None
    assert report.finding.cause == "log_of_zero"
    assert "remedies could not be tried: RuntimeError: a fault of ours" in report.notes


def test_the_batches_go_on_where_they_stood_after_trials() -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batches = [inputs(seed=n) for n in range(6)]
    batches[2][0, 0] = float("nan")

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()

    with nanhunt.Hunt(model, step, data=iter(batches), progress=False, confirm=2) as hunt:
        report = hunt.run(6)
        assert report.finding is not None
        assert report.finding.step == 2
        (trial,) = report.finding.trials
        assert trial.cured
        assert "held for 2 further steps" in trial.note
        assert hunt.step() is not None, "the same batch comes again"
        batches[2][0, 0] = 0.0
        for batch in batches[2:]:
            assert hunt.step() is None
            assert hunt._course.batches is not None
            assert hunt._course.batches.current is batch


@pytest.mark.parametrize("further", [0, 1])
def test_a_bad_batch_that_is_the_last_one_has_no_next_one_to_try(further: int) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(batch: Any) -> Any:
        optimizer.zero_grad()
        loss = model(batch).sum()
        loss.backward()
        optimizer.step()
        return loss

    good, bad = torch.ones(1, 2), torch.full((1, 2), float("nan"))
    report = nanhunt.hunt(model, step, data=[good, bad] + [good] * further, progress=False)
    assert report.finding is not None
    assert report.finding.phase == "data"
    assert [trial.cured for trial in report.finding.trials] == [True] * further
    assert not [note for note in report.notes if "could not be tried" in note]
