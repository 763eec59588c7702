"""How the models of a script are found before its training begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nanhunt.core.guard import script


def test_a_module_whose_init_has_not_been_run_is_passed_over() -> None:
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    unborn = object.__new__(torch.nn.Linear)
    assert net in script.models_of([optimizer]).values()
    del unborn


def test_memory_is_not_searched_again_for_what_no_module_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image that is optimized through a network: that is called often, and slowly enough."""
    searches = []
    find = script.models_of

    def counted(optimizers: Any) -> Any:
        searches.append(optimizers)
        return find(optimizers)

    monkeypatch.setattr(script, "models_of", counted)
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh()).requires_grad_(False)
    with script.ScriptRun(None) as watch:
        image = torch.ones(1, 2, requires_grad=True)
        optimizer = torch.optim.SGD([image], lr=0.1)
        for _ in range(5):
            network(image).sum().backward()
            optimizer.step()
        assert len(searches) == 1
        assert watch.report is None
        trained = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
        trained(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert watch.report is not None
    assert watch.report.steps_run == 1


def test_a_patch_that_the_script_has_put_around_the_own_one_stays() -> None:
    net = torch.nn.Linear(2, 1)
    original, calls = torch.nn.Module.__call__, []
    try:
        with script.ScriptRun(None) as watch:
            inner = torch.nn.Module.__call__

            def call(module: torch.nn.Module, *inputs: Any) -> Any:
                calls.append(module)
                return inner(module, *inputs)

            torch.nn.Module.__call__ = call
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            for _ in range(3):
                net(torch.ones(1, 2)).sum().backward()
                optimizer.step()
        assert torch.nn.Module.__call__ is call
    finally:
        torch.nn.Module.__call__ = original
    assert calls == [net] * 3
    assert watch.report is not None
    assert watch.report.steps_run == 3


@pytest.mark.parametrize("closure", [False, True])
def test_weights_of_which_no_module_is_called_before_their_update_are_watched(
    closure: bool,
) -> None:
    net = torch.nn.Linear(2, 1)
    with script.ScriptRun(None) as watch:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            scale = 0.0 if watch.report is not None and watch.report.steps_run == 2 else 1.0
            out = net(torch.ones(1, 2)) if closure else torch.ones(1, 2) @ net.weight.T
            value = out.div(scale).sum()
            value.backward()
            return value

        for _ in range(4):
            if closure:
                optimizer.step(loss)
            else:
                loss()
                optimizer.step()
    assert watch.report is not None
    assert watch.report.finding is not None
    assert watch.report.finding.step == 2
    assert not optimizer._optimizer_step_pre_hooks
