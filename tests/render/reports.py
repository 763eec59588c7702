"""Reports of every shape, made by hand, for the golden files."""

from __future__ import annotations

from nanhunt.records.histogram import Bin, Histogram
from nanhunt.records.report import Finding, Frame, Report, Source, TensorStats, Trial

LINE = Source("/home/me/train.py", 41, "return x.log() / self.scale", "forward")
CELL = Source("/tmp/ipykernel_1/2.py", 7, "loss = model(x).log().mean()", "step_fn", 3)


def stats(name: str, **more: object) -> TensorStats:
    numel = int(more.pop("numel", 64))  # type: ignore[call-overload]
    return TensorStats(name, (8, numel // 8), "float16", "cpu", numel, **more)  # type: ignore[arg-type]


GOOD = stats("self", zeros=3, absmin=6e-8, absmax=41000.0, mean=0.5, headroom=0.67)
BINS = Histogram("float16", 64, (Bin(-4, 0, 20), Bin(3, 9, 31)), nan=3, neginf=1, binned=64)
BAD = stats(
    "output", nan=3, neginf=1, absmin=0.1, absmax=11.0, mean=2.0, headroom=12.5, histogram=BINS
)


def finding(**changes: object) -> Finding:
    fields: dict[str, object] = {
        "severity": "critical",
        "kind": "nan",
        "phase": "forward",
        "step": 37,
        "module": "encoder.norm",
        "call": 1,
        "op": "aten.log.default",
        "source": LINE,
        "stack": (Source("/home/me/train.py", 90, "loss = model(x)", "step"), LINE),
        "inputs": (GOOD,),
        "outputs": (BAD,),
        "explanation": "aten.log.default got finite inputs and returned NaN in 4 of 64 elements.",
        "reaches": ("loss", "gradient encoder.weight"),
        "frames": tuple(Frame(f"encoder.{i}", 1, "Linear", GOOD) for i in range(3)),
    }
    return Finding(**{**fields, **changes})  # type: ignore[arg-type]


def report(*findings: Finding, **changes: object) -> Report:
    fields: dict[str, object] = {
        "steps_run": 38,
        "findings": findings,
        "replay": "bit_exact",
        "title": "Net, 1,024 parameters in 4 tensors",
        "environment": {"torch": "2.13.0", "devices": "cpu"},
        "costs": {"watched_step_seconds": 0.0123, "examination_seconds": 0.4, "replays": 3.0},
    }
    return Report(**{**fields, **changes})  # type: ignore[arg-type]


BIRTH = finding(kind="complex_half", step=0, op="aten.view_as_complex.default", reaches=())
REPORTS = {
    "healthy": report(steps_run=100, replay="not_needed"),
    "interrupted": report(steps_run=12, replay="not_needed", interrupted=True),
    "ended": report(steps_run=12, replay="not_needed", status="interrupted"),
    "interrupted_finding": report(finding(), interrupted=True),
    "nothing_watched": report(steps_run=0, replay="not_needed", costs={}),
    "internal_error": report(
        steps_run=12,
        replay="not_needed",
        status="internal_error",
        notes=("nanhunt itself failed in step 12: KeyError: 'a' (nanhunt/core/a.py:3)",),
    ),
    "unexamined": report(steps_run=12, replay="not_needed", status="unexplained"),
    "warning": report(finding(severity="warning", kind="inf"), replay="not_needed"),
    "forward": report(finding()),
    "cell": report(finding(source=CELL, module=None, call=None, stack=(CELL,))),
    "backward": report(finding(phase="backward", node="SqrtBackward0", op="aten.div.Tensor")),
    "recompute": report(finding(phase="backward", call="recompute", module="", kind="inf")),
    "optimizer": report(
        finding(phase="optimizer", module=None, call=None, tensor="encoder.weight", frames=())
    ),
    "state": report(
        finding(
            kind="poisoned_state",
            phase="state",
            tensor="norm.running_mean",
            explanation="norm.running_mean was already bad when the step began: 2 +Inf among 64 "
            "elements, the first at [3].",
        )
    ),
    "data": report(finding(phase="data", tensor="batch['x']")),
    "complex_half": report(BIRTH, replay="not_needed"),
    "two_findings": report(finding(), BIRTH, finding(severity="warning", kind="inf")),
    "not_reproduced": report(
        finding(inputs=(), outputs=(), frames=(), op=None, source=None, stack=(), module=None),
        replay="not_reproduced: the same step was healthy when it was run again",
        notes=("GradScaler skipped 16 steps in a row: its scale keeps falling",),
    ),
    "trials_not_run": report(
        finding(
            cause="log_of_zero",
            trials=tuple(
                Trial(title, None, note="not run: the 120 s for trials were up")
                for title in ("clamp the input at 1e-6", "run encoder.norm in float32")
            ),
        )
    ),
    "some_trials_not_run": report(
        finding(
            cause="log_of_zero",
            trials=(
                Trial("clamp the input at 1e-6", False, 3.0, note="still bad: loss"),
                Trial("run encoder.norm in float32", None, note="not run: no time"),
            ),
        )
    ),
    "trials": report(
        finding(
            cause="log_of_zero",
            trials=(
                Trial("clamp the input at 1e-6", True, 0.51, 1e-3, 0, "x.clamp(min=1e-6).log()"),
                Trial("run encoder.norm in float32", False, float("nan"), None, 2),
            ),
        )
    ),
}
