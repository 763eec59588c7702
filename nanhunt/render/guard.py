"""Writes what guards did as a `Story`, from which text and HTML are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanhunt.render.story import Story, Table
from nanhunt.render.wording import SIGNS, cut_short, steps, visible

if TYPE_CHECKING:
    from nanhunt.records.guard import Evaluation, GuardEvent, GuardReport

_NAMES = 5  # named in a sentence
_BUNDLES = 3  # named at all


def tell_guard(report: GuardReport) -> Story:
    """Turns a guard's report into its story."""
    facts = [("stopped", visible(report.stopped, 300))] if report.stopped else []
    facts += [("bundle", visible(e.bundle, 150)) for e in report.events if e.bundle][:_BUNDLES]
    return Story(
        SIGNS.get(report.status, "?"),
        report.status,
        _verdict(report),
        tuple(facts),
        tables=(_events(report),) if report.events else (),
        notes=tuple(visible(note, 300) for note in report.notes),
    )


def _verdict(report: GuardReport) -> str:
    if report.status == "healthy":
        return f"{steps(report.steps)}, nothing went bad"
    if report.status == "interrupted":
        return cut_short(report.steps, by_hand=report.interrupted)
    if report.status == "internal_error":
        return f"nanhunt itself failed after {steps(report.checks)}; the loop went on unwatched"
    if report.status == "nothing_watched":
        return f"Nothing was watched: {steps(report.steps)}, none checked"
    counted = ", ".join(f"{count:,} {action}" for action, count in report.counts.items())
    return f"{report.failures:,} of {report.steps:,} steps went bad: {counted}"


def _events(report: GuardReport) -> Table:
    left = report.failures - len(report.events)
    caption = "Steps that went bad" + (f" (the first; {left:,} more)" if left > 0 else "")
    rows = tuple((f"{event.step:,}", event.action, _bad(event)) for event in report.events)
    return Table(caption, ("step", "action", "not finite"), rows, first=True)


def _bad(event: GuardEvent) -> str:
    more = f" and {len(event.bad) - 3} more" if len(event.bad) > 3 else ""
    return visible(", ".join(event.bad[:3]), 120) + more


def tell_evaluation(result: Evaluation) -> Story:
    """Turns a guarded evaluation into its story."""
    told = f"{result.finite:,} of {result.calls:,} calls of the model had finite outputs"
    facts: list[tuple[str, str]] = []
    notes: tuple[str, ...] = ()
    if result.poisoned:
        more = f" and {len(result.poisoned) - _NAMES} more" if len(result.poisoned) > _NAMES else ""
        named = visible(", ".join(result.poisoned[:_NAMES]), 300)
        facts.append(("why", f"not finite before it began: {named}{more}"))
        notes = ("in train mode BatchNorm uses the batch's own statistics and does not show it",)
    elif not result.calls:
        told = "no batch was evaluated"
        facts.append(("why", "the loader was empty, or the model was not called"))
    elif result.bad_inputs:
        facts.append(("why", f"{result.bad_inputs:,} were given inputs that are not finite"))
    elif not result.healthy:
        why = "neither parameters, buffers nor inputs tell why: hunt one such batch"
        facts.append(("why", why))
    status = ("✓", "healthy") if result.healthy else ("✗", "critical")
    return Story(*status, told, tuple(facts), notes=notes)
