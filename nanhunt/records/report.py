"""What a hunt found: frozen records of numbers and strings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nanhunt.records.histogram import Histogram
from nanhunt.records.record import Record
from nanhunt.render.report import tell_report

if TYPE_CHECKING:
    from nanhunt.render.story import Story


@dataclasses.dataclass(frozen=True)
class TensorStats:
    """Exact statistics of one tensor at one moment.

    Attributes:
        name: what the tensor is, e.g. `"input 0"`, `"output"` or a parameter's name.
        shape: its shape; empty for a scalar.
        dtype: e.g. `"float16"`, without the `torch.` prefix.
        device: e.g. `"cpu"`, `"cuda:0"`.
        numel: number of elements; a complex element counts once.
        nan: elements that are NaN (complex: in either part).
        posinf: elements that are +Inf (complex: in either part, and not NaN).
        neginf: elements that are -Inf, likewise.
        zeros: elements equal to zero.
        absmin: smallest magnitude above zero of the finite elements, or None.
        absmax: largest magnitude of the finite elements, or None when there is none.
        mean: mean of the finite elements, or None (also for complex tensors).
        headroom: powers of two between `absmax` and the largest finite number of the
            dtype; 0 means the next doubling overflows. None when not applicable.
        first_bad: index of the first non-finite element, or None.
        note: why something could not be computed, or an empty string.
        histogram: its numbers by power of two, for what the culprit read and wrote.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    numel: int
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    zeros: int = 0
    absmin: float | None = None
    absmax: float | None = None
    mean: float | None = None
    headroom: float | None = None
    first_bad: tuple[int, ...] | None = None
    note: str = ""
    histogram: Histogram | None = None

    @property
    def bad(self) -> int:
        """Number of elements that are not finite."""
        return self.nan + self.posinf + self.neginf


@dataclasses.dataclass(frozen=True)
class Source:
    """One line of the user's code.

    Attributes:
        file: path of the file; for a notebook cell the kernel's name for it.
        line: line number, counted from 1.
        code: the line's text, stripped; empty when the source cannot be read.
        function: name of the enclosing function, e.g. `"forward"`.
        cell: execution count of the notebook cell, or None outside a notebook.
    """

    file: str
    line: int
    code: str
    function: str = ""
    cell: int | None = None


@dataclasses.dataclass(frozen=True)
class Frame:
    """One module call on the way to the culprit, oldest first in a finding.

    Attributes:
        module: qualified name of the module, `""` the root.
        call: n-th call of the module in the step, from 1, or `"recompute"`.
        kind: class name of the module, e.g. `"Linear"`.
        output: statistics of its output (the first floating-point tensor in it).
    """

    module: str
    call: int | str
    kind: str
    output: TensorStats


@dataclasses.dataclass(frozen=True)
class Trial:
    """A replay of the failing step with one remedy applied.

    Attributes:
        remedy: what was changed, in a few words.
        cured: whether the step was healthy then; None when it could not be run.
        loss: the loss of that replay, or None when there was none.
        gradient_change: largest relative change of a gradient that had been finite
            before, or None.
        invasiveness: 0 for the smallest change; trials are listed by it.
        snippet: the change as code for the user's program, or an empty string.
        note: what else must be said.
        file: the file (or cell) in which `snippet` replaces lines; empty when the snippet
            stands on its own.
        lines: the first and last line that it replaces, or empty.
    """

    remedy: str
    cured: bool | None
    loss: float | None = None
    gradient_change: float | None = None
    invasiveness: int = 0
    snippet: str = ""
    note: str = ""
    file: str = ""
    lines: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the hunt holds to be true, with its evidence.

    Attributes:
        severity: `"critical"` (it reaches a loss, gradient, parameter, buffer or
            optimizer state, or is a ComplexHalf birth) or `"warning"`.
        kind: `"nan"`, `"inf"`, `"complex_half"`, `"poisoned_state"`, `"not_training"`.
        phase: `"forward"`, `"backward"`, `"optimizer"`, `"state"`, `"data"`, `"loop"`.
        step: the step in which it happened, counted from 0.
        module: qualified name of the innermost module, `""` the root, None outside any.
        call: n-th call of that module in the step, from 1; `"recompute"` under
            activation checkpointing's second pass; None outside any module.
        op: the aten operation, e.g. `"aten.log.default"`, or None.
        node: the autograd node whose backward ran, e.g. `"LogBackward0"`, or None.
        source: the line; for a backward finding the *forward* line.
        stack: the user's frames, outermost first.
        tensor: name of the parameter, buffer, optimizer state or batch entry if that
            is the culprit or what was poisoned, else None.
        inputs: statistics of the operation's inputs before it ran.
        outputs: statistics of its outputs.
        cause: id of the rule that explains it, or `"not_established"`.
        explanation: one sentence.
        evidence: further facts, a sentence each.
        reaches: the bad things that descend from it, e.g. `"loss"`,
            `"gradient of encoder.weight"`.
        frames: the last module calls before it, oldest first.
        trials: remedies tried by replay, least invasive first.
    """

    severity: str
    kind: str
    phase: str
    step: int
    module: str | None = None
    call: int | str | None = None
    op: str | None = None
    node: str | None = None
    source: Source | None = None
    stack: tuple[Source, ...] = ()
    tensor: str | None = None
    inputs: tuple[TensorStats, ...] = ()
    outputs: tuple[TensorStats, ...] = ()
    cause: str = "not_established"
    explanation: str = ""
    evidence: tuple[str, ...] = ()
    reaches: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = ()
    trials: tuple[Trial, ...] = ()

    @property
    def placed(self) -> bool:
        """Whether it says what made the bad values, or only that they were seen."""
        numeric = self.kind in ("nan", "inf") and self.phase != "data"
        return not numeric or bool(self.op or self.node or self.source)


@dataclasses.dataclass(frozen=True)
class Report(Record):
    """The result of a hunt.

    Attributes:
        steps_run: steps that ran, the failing one included.
        findings: everything found, critical first, in the order of importance.
        replay: `"bit_exact"`, `"symptom"` (same failure, other bits),
            `"not_reproduced"` with a reason after a colon, or `"not_needed"`.
        interrupted: whether the user stopped the hunt.
        title: the model in a few words, e.g. `"Enhancer, 1.8 M parameters"`.
        notes: what could not be done, and other facts worth a line.
        environment: versions and devices, e.g. `{"torch": "2.13.0"}`.
        costs: measured seconds and ratios, e.g. `{"step_seconds": 0.1}`.
        status: what it all comes to, one of
            `"healthy"`: steps were run, all watched to their end, and nothing bad was seen;
            `"warning"`: likewise, but something is worth a look;
            `"finding"`: there is a critical finding;
            `"unexplained"`: something was bad, and what made it is not known;
            `"interrupted"`: by the user or by an exception of the program's own, and nothing bad
            was seen until then;
            `"nothing_watched"`: no step was run;
            `"internal_error"`: nanhunt itself failed, and nothing bad was seen until then.
            Worked out from the other fields when it is not given.
    """

    FORMAT: ClassVar[str] = "nanhunt.report"
    LINES: ClassVar[int] = 24
    MIME_TYPE: ClassVar[str] = "application/vnd.nanhunt.report.v1+json"

    steps_run: int
    findings: tuple[Finding, ...] = ()
    replay: str = "not_needed"
    interrupted: bool = False
    title: str = ""
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    costs: dict[str, float] = dataclasses.field(default_factory=dict)
    status: str = ""

    def __post_init__(self) -> None:
        """Files of versions that wrote no status have none."""
        if not self.status:
            object.__setattr__(self, "status", self._judged())

    @property
    def finding(self) -> Finding | None:
        """The main critical finding, or None."""
        return next((f for f in self.findings if f.severity == "critical"), None)

    @property
    def healthy(self) -> bool:
        """Whether steps were watched to their end and nothing went bad; warnings may be there."""
        return self.status in ("healthy", "warning")

    def _judged(self) -> str:
        if self.finding is not None:
            known = self.finding.placed or self.finding.cause != "not_established"
            return "finding" if known else "unexplained"
        if self.interrupted:
            return "interrupted"
        if not self.steps_run:
            return "nothing_watched"
        return "warning" if self.findings else "healthy"

    def story(self) -> Story:
        """The verdict, the line, why, the remedy, and the evidence."""
        return tell_report(self)

    def derived(self) -> dict[str, Any]:
        """Whether it is healthy."""
        return {"healthy": self.healthy}


def load_report(path: str | Path) -> Report:
    """Reads a report from a `*.nanhunt.json` file.

    Raises:
        ReportFormatError: the file is not JSON, no report, or of an unknown version.
        OSError: the file cannot be read.
    """
    return Report.load(path)
