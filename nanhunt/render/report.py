"""Writes a report as a `Story`, from which text and HTML are made."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from nanhunt.render import wording
from nanhunt.render.story import CodeSnippet, Story, Table

if TYPE_CHECKING:
    from nanhunt.records.report import Finding, Frame, Report, TensorStats

_OTHERS_SHOWN = 8


def tell_report(report: Report) -> Story:
    """Turns a report into its story."""
    finding = report.finding
    others = [f for f in report.findings if f is not finding]
    lines = [f"{f.severity}: {wording.verdict(f)}" for f in others[:_OTHERS_SHOWN]]
    if len(others) > _OTHERS_SHOWN:
        lines.append(f"and {len(others) - _OTHERS_SHOWN} more findings")
    notes = (*_costs(report), *(wording.visible(note, 300) for note in report.notes))
    sign = wording.SIGNS.get(report.status, "?")
    if finding is None:
        return Story(
            sign,
            report.status,
            _quiet_verdict(report),
            (("model", wording.visible(report.title, 120)),) if report.title else (),
            others=tuple(lines),
            notes=notes,
        )
    return Story(
        sign,
        report.status,
        wording.verdict(finding),
        tuple(_facts(report, finding)),
        _code_line(finding),
        _change(finding),
        tuple(_tables(finding)),
        tuple(lines),
        notes,
    )


def _code_line(finding: Finding) -> str:
    if finding.source is None:
        return ""
    return f"{wording.place(finding.source)}   {wording.visible(finding.source.code)}"


def _quiet_verdict(report: Report) -> str:
    """What a report without a critical finding comes to."""
    steps = wording.steps(report.steps_run)
    if report.status == "interrupted":
        return wording.cut_short(report.steps_run, by_hand=report.interrupted)
    known = {
        "healthy": f"Healthy: {steps}, nothing bad seen",
        "warning": f"{steps} without a failure, but not without a warning",
        "unexplained": f"Something went bad in step {report.steps_run - 1}; what made it bad has "
        "not been looked for",
        "nothing_watched": "Nothing was watched: no step was run",
        "internal_error": f"nanhunt itself failed after {steps}: nothing bad seen until then",
    }
    return known.get(report.status, f"{wording.visible(report.status, 40)}: {steps}")


def _facts(report: Report, finding: Finding) -> list[tuple[str, str]]:
    facts = [("hunt", "was interrupted")] if report.interrupted else []
    facts.append(("why", wording.visible(finding.explanation, 400)))
    if finding.cause != "not_established":
        facts.append(("cause", wording.visible(finding.cause, 80)))
    else:
        facts.append(("cause", "not established"))
    facts += _remedy(finding)
    if finding.op and finding.op not in wording.verdict(finding):
        facts.append(("operation", wording.visible(finding.op, 80)))
    if finding.tensor and finding.tensor not in wording.verdict(finding):
        facts.append(("tensor", wording.visible(finding.tensor, 120)))
    if finding.reaches:
        facts.append(("reaches", wording.visible(", ".join(finding.reaches), 300)))
    facts += [("evidence", wording.visible(line, 300)) for line in finding.evidence]
    replayed = wording.replay(report.replay)
    if replayed:
        facts.append(("replay", replayed))
    if report.title:
        facts.append(("model", wording.visible(report.title, 120)))
    return [(label, value) for label, value in facts if value]


def _remedy(finding: Finding) -> list[tuple[str, str]]:
    """The winning trial in a line, and the change it makes."""
    if not finding.trials:
        return []
    best = finding.trials[0]
    tried = sum(trial.cured is not None for trial in finding.trials)
    left = len(finding.trials) - tried
    if not best.cured:
        return [("remedy", _no_cure(finding, tried, left))]
    loss = f", loss then {wording.number(best.loss)}" if best.loss is not None else ""
    held = f"; {best.note}" if best.note else ""
    of = f" ({sum(trial.cured is True for trial in finding.trials)} of {tried} tried cure)"
    return [("remedy", f"{best.remedy}: cured by replay{of if tried > 1 else ''}{loss}{held}")]


def _no_cure(finding: Finding, tried: int, left: int) -> str:
    """That nothing cured, and what has not even been run."""
    if tried:
        more = f"; {left} not run" if left else ""
        return f"none of the {tried} tried by replay cured the step{more}"
    notes = dict.fromkeys(trial.note for trial in finding.trials if trial.note)
    why = f" ({wording.visible('; '.join(notes), 160)})" if notes else ""
    return f"{left} known, none could be run{why}"


def _change(finding: Finding) -> CodeSnippet | None:
    """The winning trial as code."""
    best = finding.trials[0] if finding.trials else None
    if best is None or not best.cured or not best.snippet:
        return None
    sources = (*finding.stack, *((finding.source,) if finding.source else ()))
    cell = next((s.cell for s in sources if s.file == best.file), None)
    where = f" {wording.lines(best.file, cell, best.lines)}" if best.lines else ""
    code = "\n".join(wording.visible(line) for line in best.snippet.strip("\n").splitlines())
    return CodeSnippet(f"Change{where}", textwrap.dedent(code))


def _tables(finding: Finding) -> list[Table]:
    tables = []
    stats = [*finding.inputs, *finding.outputs]
    if stats:
        tables.append(
            Table(
                "What the operation saw",
                ("tensor", "dtype and shape", "values", "|min| > 0", "|max|", "to limit"),
                tuple(_stats_row(entry) for entry in stats),
            )
        )
    if finding.trials:
        tables.append(
            Table(
                "Remedies tried by replay",
                ("remedy", "cured", "loss", "gradients moved", "note"),
                tuple(
                    (
                        wording.visible(trial.remedy, 80),
                        {True: "✓ yes", False: "✗ no", None: "not run"}[trial.cured],
                        wording.number(trial.loss),
                        wording.number(trial.gradient_change),
                        wording.visible(trial.note, 80),
                    )
                    for trial in finding.trials
                ),
                first=True,
            )
        )
    if finding.frames:
        tables.append(
            Table(
                "Last modules before it",
                ("module", "class", "dtype", "values", "|max|", "to limit"),
                tuple(_frame_row(frame) for frame in finding.frames),
            )
        )
    if len(finding.stack) > 1:
        tables.append(
            Table(
                "How the program got there",
                ("where", "function", "line"),
                tuple(
                    (
                        wording.place(source),
                        wording.visible(source.function, 60),
                        wording.visible(source.code, 120),
                    )
                    for source in finding.stack
                ),
            )
        )
    return tables


def _stats_row(stats: TensorStats) -> tuple[str, ...]:
    return (
        wording.visible(stats.name, 40),
        wording.shape(stats),
        wording.bad_counts(stats),
        wording.number(stats.absmin),
        wording.number(stats.absmax),
        wording.bits(stats.headroom),
    )


def _frame_row(frame: Frame) -> tuple[str, ...]:
    return (
        f"{wording.visible(frame.module, 60) or '(root)'}{wording.call(frame.call)}",
        wording.visible(frame.kind, 30),
        frame.output.dtype,
        wording.bad_counts(frame.output),
        wording.number(frame.output.absmax),
        wording.bits(frame.output.headroom),
    )


def _trial_costs(costs: dict[str, float]) -> list[str]:
    if "trial_seconds" not in costs:
        return []
    replays = int(costs.get("trial_replays", 0))
    return [f"trying remedies {costs['trial_seconds']:.3g} s and {replays} replays"]


def _costs(report: Report) -> list[str]:
    costs = report.costs
    parts = []
    if "watched_step_seconds" in costs:
        parts.append(f"a watched step took {costs['watched_step_seconds'] * 1e3:.3g} ms (median)")
    if "observed_step_seconds" in costs:
        parts.append(f"the observed first step {costs['observed_step_seconds'] * 1e3:.3g} ms")
    if "examination_seconds" in costs:
        replays = int(costs.get("replays", 0))
        told = f" and {replays} replays" if replays else ""
        parts.append(f"finding the culprit {costs['examination_seconds']:.3g} s{told}")
    parts += _trial_costs(costs)
    return [", ".join(parts)] if parts else []
