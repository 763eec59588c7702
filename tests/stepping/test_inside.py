"""Promises of stepping inside a step: moves, what is seen there, breakpoints."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nanhunt
from nanhunt.errors import UsageError
from tests.stepping.programs import training


def test_into_visits_every_module_forward_and_backward_in_order(hunt: nanhunt.Hunt) -> None:
    places = []
    here = hunt.into()
    while here is not None:
        places.append((here.phase, here.path))
        here = hunt.into()
    forward = [place for place in places if place[0] != "backward"]
    assert forward[:4] == [
        ("before", ""), ("before", "body"), ("before", "body.0"), ("after", "body.0")
    ]  # fmt: skip
    assert forward[-3:] == [("before", "head"), ("after", "head"), ("after", "")]
    backward = [path for phase, path in places if phase == "backward"]
    assert backward == ["", "head", "drop", "body", "body.2", "body.1", "body.0"]
    assert hunt.position == 1


def test_over_passes_a_module_by_and_out_leaves_the_one_around(hunt: nanhunt.Hunt) -> None:
    assert str(hunt.into()) == "step 0, before the model (Net)"
    assert hunt.into().path == "body"
    here = hunt.over()
    assert (here.phase, here.path) == ("after", "body")
    assert (hunt.over().path, hunt.over().path, hunt.over().path) == ("drop", "drop", "head")
    here = hunt.out()
    assert (here.phase, here.path) == ("after", "")
    here = hunt.over()
    assert (here.phase, here.path) == ("backward", "")
    assert hunt.out() is None
    assert hunt.position == 1


def test_here_holds_the_live_tensors_and_lets_go_of_them_when_the_step_goes_on(
    hunt: nanhunt.Hunt,
) -> None:
    hunt.break_at("body.0")
    here = hunt.resume()
    assert here.module is hunt.module_tree()["body.0"]
    assert here.inputs[0][0].shape == (16, 4)
    after = hunt.over()
    assert here.module is None
    assert here.inputs is None
    assert after.output.shape == (16, 8)
    hunt.clear_breakpoints()
    backward = hunt.break_at("body.0", phase="backward")
    here = hunt.resume()
    assert here.gradient.shape == (16, 8)
    assert hunt.breakpoints == (backward,)
    assert hunt.resume() is None


@pytest.mark.parametrize(
    ("condition", "stops"),
    [
        ("nan", False), ("inf or nan", False), ("absmax > 1e4", False), ("absmax > 1e-6", True),
        ("dtype == float32", True), ("dtype == float16", False), ("complex_half", False),
        ("underflow > 10%", False), ("not nan and absmax < 1e30", True), ("zeros > 99%", False),
        ("step == 0", True), ("step > 2 and absmax > 0", False),
        (lambda here: here.tensors[0].dim() == 2, True), (lambda here: False, False),
    ],
)  # fmt: skip
def test_a_condition_decides_whether_a_breakpoint_stops(
    hunt: nanhunt.Hunt, condition: Any, stops: bool
) -> None:
    hunt.break_at("body.*", condition)
    assert (hunt.resume() is not None) == stops


def test_a_condition_is_asked_of_outputs_and_in_backward_of_gradients() -> None:
    model, _, step_fn, _ = training()
    with torch.no_grad():
        model.body[0].weight[0, 0] = float("inf")
    with nanhunt.Hunt(model, step_fn) as hunt:
        hunt.break_at("Linear", "inf or nan", phase="both")
        here = hunt.resume()
        assert (here.phase, here.path) == ("after", "body.0")
        here = hunt.resume()
        assert (here.phase, here.path) == ("before", "head")
        hunt.clear_breakpoints()
        hunt.break_at("Linear", "nan", phase="backward")
        assert hunt.resume().phase == "backward"


@pytest.mark.parametrize(
    ("where", "condition", "told"),
    [
        ("boddy", None, "no module is called 'boddy'"),
        ("body", "absmx > 1", "did you mean absmax?"),
        ("body", "absmax >", "cannot be read as a condition"),
        ("body", "__import__('os')", "cannot be read as a condition"),
    ],
)
def test_a_breakpoint_that_cannot_work_is_refused(
    hunt: nanhunt.Hunt, where: str, condition: str | None, told: str
) -> None:
    with pytest.raises(UsageError, match=told.replace("?", r"\?")):
        hunt.break_at(where, condition)
    assert hunt.breakpoints == ()


def test_a_predicate_that_raises_stops_the_step_and_says_why(hunt: nanhunt.Hunt) -> None:
    point = hunt.break_at("head", lambda here: here.nothing)
    assert hunt.resume() is not None
    assert "AttributeError" in point.error
