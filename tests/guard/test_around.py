"""Guards around an evaluation and around saving, and BatchNorm's settings."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from stories import fourier_inpainting
from torch import nn

import nanhunt
from nanhunt.errors import PoisonedStateError, UsageError
from tests.guard import programs


def poisoned_story() -> Any:
    story = fourier_inpainting.build(broken=True)
    for _ in range(12):
        story.step_fn()
    return story


# -- evaluation ---------------------------------------------------------------------------------


def test_an_evaluation_with_poisoned_buffers_is_refused_by_name() -> None:
    story = poisoned_story()
    named = r"buffer scales\.0\.ffc\.local_conv\.1\.running_mean"
    with pytest.raises(PoisonedStateError, match=named), nanhunt.validate_guard(story.model):
        raise AssertionError("it was evaluated")


def test_no_valid_batch_is_explained_by_the_buffers() -> None:
    story = poisoned_story()
    guard = nanhunt.validate_guard(story.model, on_poisoned="warn")
    with pytest.warns(UserWarning, match="running_mean"), guard:
        assert story.extras["evaluate"]() == (0, 4)
    assert (guard.result.calls, guard.result.finite) == (4, 0)
    assert "local_conv.1.running_mean" in str(guard.result)
    assert not guard.result.healthy


def test_a_healthy_evaluation_is_not_changed_in_any_bit() -> None:
    outputs = []
    for guarded in (False, True):
        model = programs.net().eval()
        data = programs.batches(4)
        if guarded:
            with nanhunt.validate_guard(model) as guard, torch.no_grad():
                outputs.append([model(x) for x in data])
            assert guard.result.healthy
        else:
            with torch.no_grad():
                outputs.append([model(x) for x in data])
    assert all(map(torch.equal, *outputs))


def test_zero_batches_are_not_taken_for_a_success() -> None:
    with nanhunt.validate_guard(programs.net()) as guard:
        pass
    assert not guard.result.healthy
    assert "no batch was evaluated" in str(guard.result)


def test_bad_inputs_are_told_apart_from_a_bad_model() -> None:
    model = programs.net().eval()
    with nanhunt.validate_guard(model) as guard:
        for x in programs.batches(4, bad=(1, 2), value=float("nan")):
            model(x)
    result = guard.result
    assert (result.calls, result.finite, result.bad_inputs) == (4, 2, 2)
    assert "2 were given inputs" in str(result)


def test_masks_in_the_output_are_valid() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            return self.linear(x).masked_fill(torch.eye(2, dtype=torch.bool), float("-inf"))

    model = Masked()
    with nanhunt.validate_guard(model) as guard:
        model(torch.ones(2, 2))
    assert guard.result.healthy


def test_a_mask_among_the_inputs_is_not_blamed() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Any, mask: Any) -> Any:
            return (self.linear(x) + mask).softmax(-1)

    model = Attention()
    mask = torch.full((2, 2), float("-inf"))  # of all: the softmax is NaN
    with nanhunt.validate_guard(model) as guard:
        model(torch.ones(2, 2), mask.triu(1))
        model(torch.ones(2, 2), mask=mask)
    result = guard.result
    assert (result.calls, result.finite, result.bad_inputs) == (2, 1, 0)
    assert "hunt one such batch" in str(result)


def test_an_exception_in_the_evaluation_is_its_own() -> None:
    with pytest.raises(KeyError, match="mine"), nanhunt.validate_guard(programs.net()):
        raise KeyError("mine")


def test_an_unknown_choice_is_named() -> None:
    with pytest.raises(UsageError, match="'refuse' and 'warn'"):
        nanhunt.validate_guard(programs.net(), on_poisoned="ignore")


# -- saving -------------------------------------------------------------------------------------


def test_a_poisoned_checkpoint_gets_a_healthy_copy_and_a_reason(tmp_path: Path) -> None:
    story = poisoned_story()
    path = tmp_path / "last.pt"
    guard = nanhunt.save_guard()
    with pytest.warns(UserWarning, match=r"running_mean.*last_FIXED\.pt"), guard:
        torch.save({"model": story.model.state_dict()}, path)
    as_asked = torch.load(path, weights_only=True)["model"]
    assert not all(bool(torch.isfinite(v).all()) for v in as_asked.values())
    fixed = torch.load(tmp_path / "last_FIXED.pt", weights_only=True)["model"]
    assert all(bool(torch.isfinite(v).all()) for v in fixed.values())
    assert nanhunt.doctor(tmp_path / "last_FIXED.pt").healthy
    (found,) = guard.diagnoses
    assert found.mended


def test_a_poisoned_file_is_told_also_when_its_copy_is_there_already(tmp_path: Path) -> None:
    """Programs write last.pt over and over."""
    story = poisoned_story()
    path = tmp_path / "last.pt"
    for reason in (r"a repaired copy is", r"no repaired copy was written: .*is there already"):
        guard = nanhunt.save_guard()
        with pytest.warns(UserWarning, match=rf"bad values in .*running_mean.*{reason}"), guard:
            torch.save(story.model.state_dict(), path)
        (found,) = guard.diagnoses
        assert not found.healthy


def test_weights_are_not_made_up(tmp_path: Path) -> None:
    model = programs.net()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.warns(UserWarning, match=r"0\.weight"), nanhunt.save_guard() as guard:
        torch.save(model.state_dict(), tmp_path / "last.pt")
    (found,) = guard.diagnoses
    assert not found.mended


def test_healthy_files_are_left_alone_without_a_word(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with nanhunt.save_guard() as guard:
            torch.save(programs.net().state_dict(), tmp_path / "last.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
    assert [found.healthy for found in guard.diagnoses] == [True]


def test_files_of_other_writers_are_examined_when_named(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    write = torch.save  # as if it were another library's
    with nanhunt.save_guard(path) as guard:
        write({"x": torch.ones(2)}, path)
    assert len(guard.diagnoses) == 1


def test_another_patch_of_saving_is_left_in_place(tmp_path: Path) -> None:
    original, saved = torch.save, []
    try:
        with nanhunt.save_guard() as guard:
            inner = torch.save

            def save(*args: Any) -> None:
                saved.append(args[1])
                inner(*args)

            torch.save = save
            torch.save({"x": torch.ones(2)}, tmp_path / "x.pt")
        assert torch.save is save
        torch.save({"x": torch.ones(2)}, tmp_path / "y.pt")
    finally:
        torch.save = original
    assert len(saved) == 2
    assert len(guard.diagnoses) == 1


def test_an_exception_while_saving_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"), nanhunt.save_guard():
        raise KeyError("mine")


# -- settings -----------------------------------------------------------------------------------


def test_what_is_changed_is_told_and_nothing_else_is() -> None:
    story = fourier_inpainting.build(broken=True)
    before = programs.everything(story.model)
    told = nanhunt.stabilise_batch_norm(story.model, momentum=0.02, eps=None)
    layer = story.model.scales[0].ffc.local_conv[1]
    assert (layer.momentum, layer.eps) == (0.02, 1e-5)
    assert str(told.changes[0]) == "scales.0.ffc.local_conv.1.momentum: 0.1 -> 0.02"
    assert (len(told.changes), told.layers) == (1, 1)
    assert told.in_half == ("scales.0.ffc.local_conv.1",)
    assert programs.different(programs.everything(story.model), before) == []
    assert nanhunt.stabilise_batch_norm(story.model, momentum=0.02, eps=None).changes == ()


@pytest.mark.parametrize("options", [{"momentum": 0}, {"momentum": 2}, {"eps": 0}])
def test_settings_that_cannot_work_are_refused(options: dict[str, float]) -> None:
    model = programs.net()
    with pytest.raises(UsageError, match=next(iter(options))):
        nanhunt.stabilise_batch_norm(model, **options)
    assert model[1].momentum == 0.1


def test_a_model_without_statistics_is_named() -> None:
    with pytest.raises(UsageError, match="no layer with running statistics"):
        nanhunt.stabilise_batch_norm(nn.Linear(2, 2))
