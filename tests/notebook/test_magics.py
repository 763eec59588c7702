"""The magics in an IPython shell of this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import nanhunt
from nanhunt.options import OPTIONS

PROGRAM = """
import torch
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
pair = [model]
x = torch.ones(4, 2)
def step():
    optimizer.zero_grad()
    loss = (model(x) * 0).log().sum()
    loss.backward()
    optimizer.step()
def good():
    optimizer.zero_grad()
    loss = model(x).pow(2).sum()
    loss.backward()
    optimizer.step()
def needs_a_batch(batch):
    good()
"""


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    made = InteractiveShell.instance()
    made.history_manager.enabled = False
    run(made, "%load_ext nanhunt")
    run(made, PROGRAM)
    yield made
    run(made, "%unload_ext nanhunt")
    InteractiveShell.clear_instance()


def run(shell: InteractiveShell, cell: str) -> Any:
    with capture_output() as captured:
        result = shell.run_cell(cell, store_history=True)
    result.printed = captured.stdout + captured.stderr
    return result


def test_the_preflight_is_one_undone_step(shell: InteractiveShell) -> None:
    run(shell, "before = model.weight.detach().clone()")
    facts = run(shell, "%nanhunt model good --preflight").result
    assert isinstance(facts, nanhunt.Preflight)
    assert facts.warnings == ()
    assert bool(run(shell, "torch.equal(before, model.weight)").result)
    assert "--preflight" in run(shell, "%nanhunt?").printed


def test_remedies_and_confirmation_are_options_of_the_magic(shell: InteractiveShell) -> None:
    report = run(shell, "%nanhunt model step --steps 3 --confirm 2").result
    assert "held for 2 further steps" in report.finding.trials[0].note
    assert run(shell, "%nanhunt model step --steps 3 --no-trials").result.finding.trials == ()


def test_the_cell_magic_names_its_cell_by_the_number_at_its_prompt(
    shell: InteractiveShell,
) -> None:
    cell = (
        "%%nanhunt model\nfor n in range(3):\n    step()\n    (model(x) * 0).log().sum().backward()"
    )
    cell += "\n    optimizer.step()"
    result = run(shell, cell.replace("    step()\n", ""))
    finding = result.result.finding
    assert finding.source.cell == result.execution_count
    assert finding.source.line == 3


@pytest.mark.parametrize("blank", ["", "\n", "\n  \n\n"])
def test_blank_lines_after_the_cell_magic_are_counted(shell: InteractiveShell, blank: str) -> None:
    loop = "for n in range(3):\n    (model(x) * 0).log().sum().backward()\n    optimizer.step()"
    finding = run(shell, f"%%nanhunt model\n{blank}{loop}").result.finding
    assert finding.source.line == 3 + blank.count("\n")


def test_the_line_magic_returns_the_report(shell: InteractiveShell) -> None:
    report = run(shell, "%nanhunt model step --steps 3").result
    assert isinstance(report, nanhunt.Report)
    assert report.finding is not None
    assert report.finding.op == "aten.log.default"
    assert report.finding.source is not None
    assert report.finding.source.cell is not None
    assert report.finding.source.code == "loss = (model(x) * 0).log().sum()"


def test_its_report_can_be_assigned(shell: InteractiveShell) -> None:
    run(shell, "report = %nanhunt model good --steps 7 --no-progress")
    report = shell.user_ns["report"]
    assert report.healthy
    assert report.steps_run == 7


def test_an_expression_in_quotes_is_a_model_too(shell: InteractiveShell) -> None:
    report = run(shell, """%nanhunt "{'first': model}" step""").result
    assert report.finding is not None
    report = run(shell, "%nanhunt pair step").result
    assert report.finding is not None


def test_the_cell_magic_watches_the_cells_own_loop(shell: InteractiveShell) -> None:
    cell = (
        "%%nanhunt model\n"
        "for number in range(5):\n"
        "    good() if number < 3 else step()\n"
        "last = number\n"
    )
    report = run(shell, cell).result
    assert report.finding is not None
    assert report.finding.step == 3
    assert shell.user_ns["number"] == 3
    assert "last" not in shell.user_ns


def test_a_healthy_cell_leaves_its_names_behind(shell: InteractiveShell) -> None:
    result = run(shell, "%%nanhunt model\nfor number in range(4):\n    good()\nafter = number")
    assert result.result.healthy
    assert result.result.steps_run == 4
    assert shell.user_ns["after"] == 3


LOOPS = {
    "loss code in the cell": (
        "for n in range(6):\n"
        "    optimizer.zero_grad()\n"
        "    loss = (model(x) * (n != 4)).abs().log().mean()  # culprit\n"
        "    loss.backward()\n"
        "    optimizer.step()\n",
        {"step": 4, "kind": "inf", "op": "aten.log.default"},
    ),
    "epochs around batches": (
        "seen = []\n"
        "for epoch in range(3):\n"
        "    model.train()\n"
        "    for a, b in zip(x, x):\n"
        "        if epoch == 1 and len(seen) == 5:\n"
        "            a = a / 0  # culprit\n"
        "        optimizer.zero_grad()\n"
        "        (model(a) - b.sum()).pow(2).mean().backward()\n"
        "        optimizer.step()\n"
        "        seen.append(epoch)\n",
        {"step": 5, "kind": "inf", "op": "aten.div.Tensor"},
    ),
    "a while loop": (
        "n = 0\n"
        "while n < 6:\n"
        "    optimizer.zero_grad()\n"
        "    model(x * (1 if n < 2 else float('inf'))).sum().backward()\n"
        "    optimizer.step()\n"
        "    n += 1\n",
        {"step": 2, "phase": "loop", "op": None},
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_cells_own_loop_is_hunted_to_its_line(shell: InteractiveShell, name: str) -> None:
    source, expected = LOOPS[name]
    report = run(shell, f"%%nanhunt model\n{source}").result
    finding = report.finding
    assert {key: getattr(finding, key) for key in expected} == expected
    if "# culprit" in source:
        assert report.replay == "bit_exact"
        assert finding.source.code.endswith("# culprit")
        assert finding.source.cell is not None
        cell = f"%%nanhunt model\n{source}".splitlines()
        assert cell[finding.source.line - 1].endswith("# culprit")
    assert not [n for n in shell.user_ns if n.startswith("__nanhunt")]


def test_break_and_continue_do_what_they_do_in_a_bare_cell(shell: InteractiveShell) -> None:
    source = (
        "done = []\n"
        "for epoch in range(2):\n"
        "    for n in range(9):\n"
        "        if n == 1:\n"
        "            continue\n"
        "        if n == 4:\n"
        "            break\n"
        "        good()\n"
        "        optimizer.zero_grad()\n"
        "        model(x).pow(2).mean().backward()\n"
        "        optimizer.step()\n"
        "        done.append((epoch, n))\n"
        "    done.append('epoch')\n"
        "after = len(done)\n"
    )
    torch_seed = "import torch; torch.manual_seed(0)\n"
    run(shell, torch_seed + PROGRAM + source)
    bare = shell.user_ns["done"], shell.user_ns["after"], shell.user_ns["model"].weight.tolist()
    run(shell, torch_seed + PROGRAM)
    report = run(shell, f"%%nanhunt model\n{source}").result
    assert report.findings == ()
    watched = shell.user_ns["done"], shell.user_ns["after"], shell.user_ns["model"].weight.tolist()
    assert watched == bare


def test_an_exception_of_the_cell_stays_its_own(shell: InteractiveShell) -> None:
    result = run(shell, "%%nanhunt model\ngood()\nraise KeyError('mine')")
    assert isinstance(result.error_in_exec, KeyError)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%nanhunt", "name the model and the step function"),
        ("%nanhunt model", "required: step_fn"),
        ("%nanhunt modle step", "did you mean model?"),
        ("%nanhunt model stepp", "did you mean step?"),
        ("%nanhunt model step --stepz 3", "did you mean --steps?"),
        ("%nanhunt model step --steps many", "invalid int"),
        ("%nanhunt model step --steps 0", "at least 1"),
        ("%nanhunt model step --back -1", "at least 0"),
        ("%nanhunt 3 step", "not a torch.nn.Module"),
        ("%nanhunt model 3", "cannot be called"),
        ("%nanhunt model needs_a_batch", "no argument"),
        ('%nanhunt "model step', "No closing quotation"),
    ],
)
def test_misuse_is_a_usage_error_in_words(shell: InteractiveShell, line: str, words: str) -> None:
    result = run(shell, line)
    assert type(result.error_in_exec) is UsageError
    assert words in str(result.error_in_exec)
    assert "Traceback" not in result.printed


def test_the_help_names_every_option() -> None:
    from nanhunt.notebook.magics import NanhuntMagics

    text = NanhuntMagics.nanhunt.__doc__
    for option in OPTIONS:
        assert option.flag in text


def test_loading_and_unloading_twice_changes_nothing(shell: InteractiveShell) -> None:
    matchers = len(shell.Completer.custom_matchers)
    for _ in range(2):
        assert run(shell, "%reload_ext nanhunt").printed == ""
    assert len(shell.Completer.custom_matchers) == matchers
    for _ in range(2):
        nanhunt.unload_ipython_extension(shell)
    assert not {"nanhunt", "nanhunt_doctor"} & set(shell.magics_manager.magics["line"])
    assert len(shell.Completer.custom_matchers) == matchers - 1
    nanhunt.load_ipython_extension(shell)


def proposed(shell: InteractiveShell, line: str) -> set[str]:
    with provisionalcompleter():
        return {found.text for found in shell.Completer.completions(line, len(line))}


@pytest.mark.parametrize("jedi", [True, False])
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("%nanhunt mo", {"model"}),
        ("%nanhunt ", {"model", "pair"}),
        ("%nanhunt model ", {"step", "good", "needs_a_batch"}),
        ("%nanhunt model step --no-s", {"--no-snapshot"}),
        ("report = %nanhunt model step --st", {"--steps"}),
        ("%%nanhunt mo", {"model"}),
    ],
)
def test_completion_proposes_what_fits(
    shell: InteractiveShell, line: str, wanted: set[str], jedi: bool
) -> None:
    shell.Completer.use_jedi = jedi
    assert wanted <= proposed(shell, line)


def test_completion_elsewhere_is_left_alone(shell: InteractiveShell) -> None:
    assert "model" in proposed(shell, "mod")
    assert "--steps" not in proposed(shell, "x = --st")


def test_the_doctor_returns_its_diagnosis(shell: InteractiveShell, tmp_path: Path) -> None:
    run(shell, f"path = {str(tmp_path / 'a file.pt')!r}")
    run(shell, "torch.save({'module.' + k: v for k, v in model.state_dict().items()}, path)")
    found = run(shell, '%nanhunt_doctor "$path"').result
    assert isinstance(found, nanhunt.Diagnosis)
    assert found.healthy
    assert "<strong>Healthy" in found._repr_mimebundle_()["text/html"]
    beside = run(shell, '%nanhunt_doctor "$path" --against model').result
    assert [mismatch.kind for mismatch in beside.match.mismatches] == ["prefix"]
    run(shell, "torch.save({'w': torch.tensor([float('nan')])}, path)")
    run(shell, '%nanhunt_doctor "$path" --fix-weights')
    assert run(shell, f'%nanhunt_doctor "{tmp_path / "a file_FIXED.pt"}"').result.healthy


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "the following arguments are required: path"),
        ("nothing.pt", "No such file"),
        ("nothing.pt --fxi", "unrecognized arguments: --fxi"),
        ("nothing.pt --against modle", "did you mean model?"),
        ('"nothing.pt', "No closing quotation"),
    ],
)
def test_misuse_of_the_doctor_is_one_line(
    line: str, complaint: str, shell: InteractiveShell
) -> None:
    result = run(shell, f"%nanhunt_doctor {line}")
    assert isinstance(result.error_in_exec, UsageError)
    assert str(result.error_in_exec).startswith("%nanhunt")
    assert complaint in result.printed
    assert "Traceback" not in result.printed
