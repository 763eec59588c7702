"""The ledger of a hunt: what was found, what it cost, and the report made from it."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch.amp import GradScaler
from torch.optim import Optimizer

from nanhunt.core.hunting.own_failures import for_its_authors, one_line
from nanhunt.core.locate.finding import birth_finding, swallowed_findings
from nanhunt.core.observe.observer import Observer
from nanhunt.core.program.target import Target, innermost
from nanhunt.core.tensors.stats import is_bad
from nanhunt.errors import UsageError
from nanhunt.records.report import Finding, Report

_last_report: Report | None = None


def last_report() -> Report | None:
    """The report of the last hunt, also of one that ended with an exception."""
    return _last_report


class Ledger:
    """Collects what a hunt finds.

    Attributes:
        steps_run: steps run, the failing one included.
        raised: whether an exception of the program's own ended the last step.
        failed: whether nanhunt itself failed.
        unexamined: names of what was bad in a step that was undone without being examined.
        acquitted: names of buffers whose infinities are a mask; nobody looks at them again.
        replay, interrupted, notes, costs: as in `Report`.
        step_seconds: duration of each watched step.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._findings: list[Finding] = []
        self.steps_run = 0
        self.replay = "not_needed"
        self.interrupted = self.raised = self.failed = False
        self.unexamined: tuple[str, ...] = ()
        self.notes: list[str] = []
        self.costs: dict[str, float] = {}
        self.step_seconds: list[float] = []
        # Infinite before the hunt began: they count only if something reads them.
        self.acquitted = {
            name
            for name, buffer in target.buffers()
            if is_bad(buffer) and name.rpartition(".")[2] not in ("running_mean", "running_var")
        }

    def add(self, finding: Finding) -> None:
        """Adds a finding unless the same stands there already."""
        if not self.knows(finding):
            self._findings.append(finding)

    def knows(self, finding: Finding) -> bool:
        """Whether the same stands there already."""
        return _identity(finding) in {_identity(other) for other in self._findings}

    @property
    def critical(self) -> list[Finding]:
        """The critical findings so far."""
        return [finding for finding in self._findings if finding.severity == "critical"]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings so far, the most important one first."""
        return tuple(sorted(self._findings, key=_importance))

    def replace(self, finding: Finding, by: Finding) -> None:
        """Puts a fuller finding in the place of one that was added before."""
        self._findings = [by if known is finding else known for known in self._findings]

    def add_cost(self, name: str, amount: float) -> None:
        """Adds to what something has cost so far, in seconds or replays."""
        self.costs[name] = self.costs.get(name, 0.0) + amount

    def goes_on(self) -> None:
        """A further step: what had ended the run before it did not end it after all."""
        self.interrupted = self.raised = self.failed = False
        self.unexamined = ()

    def ended(self, error: BaseException, step: int) -> None:
        """An exception that is not nanhunt's ended the run in this step."""
        if not isinstance(error, Exception | SystemExit):
            self.interrupted = True  # Ctrl-C, or the end of a step that was paused inside
        else:
            self.raised = True
            self.notes.append(f"step {step} ended in an exception: {one_line(error)}")

    def own_failure(self, error: BaseException, what: str) -> None:
        """Notes a failure of nanhunt itself; `what` begins the line."""
        self.failed = True
        self.notes.append(
            f"{what}: {for_its_authors(error)}. Please send this line to nanhunt's authors"
        )

    def _status(self) -> str:
        """The report's, where it does not follow from what else is in it."""
        if self.critical:
            return ""
        if self.failed:
            return "internal_error"
        if self.unexamined:
            return "unexplained"
        return "interrupted" if self.raised else ""

    def note_first_step(self, observer: Observer) -> None:
        """Takes over what the observed first step shows besides failures."""
        for birth in observer.births:
            self.add(birth_finding(birth, 0))
        for warning in swallowed_findings(observer, 0, frozenset()):
            self.add(warning)

    def report(self) -> Report:
        """The report of what has been found so far."""
        costs = dict(self.costs)
        if self.step_seconds:
            costs["watched_step_seconds"] = statistics.median(self.step_seconds)
        devices = sorted({str(p.device) for p in self._target.parameters.values()})
        return Report(
            steps_run=self.steps_run,
            findings=self.findings,
            replay=self.replay,
            interrupted=self.interrupted,
            title=self._target.title(),
            notes=tuple(dict.fromkeys(self.notes)),
            environment={"torch": str(torch.__version__), "devices": ", ".join(devices)},
            costs=costs,
            status=self._status(),
        )

    def publish(self) -> None:
        """Makes the report the one that `last_report` returns."""
        global _last_report
        _last_report = self.report()


def listed(given: Any, kind: type[Any], name: str) -> list[Any]:
    """Takes one thing, several or None, and makes sure of their type.

    Raises:
        UsageError: one of them is of another type.
    """
    if given is None:
        return []
    items = list(given) if isinstance(given, list | tuple) else [given]
    for item in items:
        if not isinstance(item, kind):
            raise UsageError(
                f"{name} is of type {type(item).__name__}, not a {kind.__module__}.{kind.__name__}"
            )
    return [innermost(item) if isinstance(item, Optimizer) else item for item in items]


def working_scalers(given: Any) -> list[GradScaler]:
    """The scalers that were given, without those made with `enabled=False`: these do nothing.

    Raises:
        UsageError: one of them is no GradScaler.
    """
    return [scaler for scaler in listed(given, GradScaler, "scaler") if scaler.is_enabled()]


def _identity(finding: Finding) -> tuple[Any, ...]:
    cause = finding.cause if finding.kind == "not_training" else ""
    return finding.severity, finding.kind, finding.op, finding.module, finding.source, cause


def _importance(finding: Finding) -> tuple[bool, bool, int]:
    return finding.severity != "critical", finding.kind == "complex_half", finding.step
