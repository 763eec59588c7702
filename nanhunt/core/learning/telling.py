"""Writes the finding about training that does not learn."""

from __future__ import annotations

from collections.abc import Sequence

from nanhunt.core.learning.log import LearningLog
from nanhunt.records.report import Finding

ENOUGH_CALLS = 20  # calls without any update; accumulation over more is hardly ever meant
ENOUGH_UPDATES = 5
_NAMED = 6


def finding(
    log: LearningLog,
    cause: str,
    explanation: str,
    evidence: Sequence[str] = (),
    parameters: Sequence[str] = (),
    severity: str = "critical",
) -> Finding:
    """The finding of a rule.

    Args:
        log: what was collected.
        cause: the rule's id.
        explanation: one sentence with the numbers.
        evidence: further facts.
        parameters: names of those concerned.
        severity: as in `Finding`.
    """
    named = listing(parameters)
    return Finding(
        severity=severity,
        kind="not_training",
        phase="loop",
        step=max(log.steps - 1, 0),
        tensor=parameters[0] if parameters else None,
        cause=cause,
        explanation=explanation,
        evidence=(*evidence, *((f"parameters: {named}",) if named else ())),
    )


def listing(names: Sequence[str]) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more if names else ""


def counted(number: int, what: str) -> str:
    """`1 update`, `3 updates`, `3 backward passes`."""
    ending = "" if number == 1 else "es" if what.endswith("s") else "s"
    return f"{number:,} {what}{ending}"
