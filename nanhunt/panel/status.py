"""The panel's first lines: where the training stands, and what is in view there."""

from __future__ import annotations

from html import escape
from typing import Any

from nanhunt.core.stepping.events import AFTER, BACKWARD, Here
from nanhunt.core.stepping.stepper import PAUSED, RUNNING
from nanhunt.core.tensors.binning import histogram
from nanhunt.core.tensors.dtypes import dtype_name
from nanhunt.interactive import Hunt
from nanhunt.panel.controls import possible
from nanhunt.records.histogram import Histogram
from nanhunt.records.report import Finding
from nanhunt.render import wording

_MOST_TENSORS = 6
_MOST_NAMES = 3


def headline(hunt: Hunt, progress: str = "") -> tuple[str, str]:
    """What the training is doing, and how grave it is: `"calm"`, `"busy"` or `"alarm"`."""
    here, stepper = hunt.here, hunt.stepper
    if hunt.closed:
        return "Stopped: nothing is attached to the training any more.", "calm"
    if here is not None:
        hit = f" — breakpoint {stepper.hit}" if stepper.hit else ""
        failed = f" ({stepper.hit.error})" if stepper.hit and stepper.hit.error else ""
        return f"Paused in {here}{hit}{failed}", "busy"
    if stepper.state == RUNNING or progress:
        return f"Running: {', '.join(part for part in (stepper.job, progress) if part)}", "busy"
    if stepper.error is not None:
        told = f"{type(stepper.error).__name__}: {stepper.error}".splitlines()[0]
        return f"step_fn raised {told[:300]}; the step was undone", "alarm"
    finding = current_finding(hunt)
    if finding is not None:
        return (
            f"{wording.verdict(finding)}. The training stands at the start of that step.",
            "alarm",
        )
    if hunt.bad:
        more = len(hunt.bad) - _MOST_NAMES
        names = ", ".join(hunt.bad[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
        return (
            f"Step {hunt.position} went bad and was undone: {names}. Hunt finds the cause.",
            "alarm",
        )
    return f"The training stands at the start of step {hunt.position}.", "calm"


def current_finding(hunt: Hunt) -> Finding | None:
    """The finding of the step at whose start the training stands."""
    critical = (finding for finding in hunt.findings if finding.severity == "critical")
    finding = next(critical, None)
    return finding if finding is not None and finding.step == hunt.position else None


def status_html(hunt: Hunt, progress: str, notice: str) -> str:
    """The lines above the buttons.

    Args:
        hunt: the hunt.
        progress: what a hunt in the calling cell is doing.
        notice: what a command answered.
    """
    text, grade = headline(hunt, progress)
    parts = [
        f'<div role="status" class="nh-line nh-{grade}">{escape(wording.visible(text, 600))}</div>'
    ]
    finding = None if hunt.closed or hunt.here else current_finding(hunt)
    if finding is not None and finding.explanation:
        parts.append(f"<div>{escape(wording.visible(finding.explanation, 600))}</div>")
    if notice:
        parts.append(f'<div class="nh-notice">{escape(wording.visible(notice, 400))}</div>')
    if not hunt.closed:
        parts.append(f'<div class="nh-small">{escape(_footing(hunt))}</div>')
    if hunt.here is not None:
        parts.append(_tensors(hunt.here))
    return "".join(parts)


def enabled(hunt: Hunt, busy: bool) -> dict[str, bool]:
    """Which commands can be given now, by name.

    Args:
        hunt: the hunt.
        busy: whether a step is running.
    """
    return possible(busy, hunt.stepper.state == PAUSED, hunt.steps_run)


def remote_state(hunt: Hunt, progress: str, notice: str, able: dict[str, bool]) -> dict[str, Any]:
    """The same for a front end's own controls: strings, numbers and names of commands."""
    text, grade = headline(hunt, progress)
    return {
        "headline": wording.visible(text, 600),
        "grade": grade,
        "notice": wording.visible(notice, 400),
        "step": hunt.position,
        "state": hunt.stepper.state,
        "commands": [name for name, possible in able.items() if possible],
    }


def live_histogram(here: Here | None) -> tuple[str, str, Histogram] | None:
    """What is in view where the step is paused: kind, module path, histogram."""
    if here is None:
        return None
    found = [counted for counted in map(histogram, here.tensors) if counted.numel]
    if not found:
        return None
    total = found[0]
    for more in found[1:]:
        total = total + more
    kind = {AFTER: "activation", BACKWARD: "gradient"}.get(here.phase, "input")
    return kind, here.path, total


def _footing(hunt: Hunt) -> str:
    nbytes, older = hunt.memory
    parts = [f"step {hunt.position}"]
    if hunt.loss_size is not None:
        parts.append(f"last |loss| {wording.number(hunt.loss_size)}")
    back = f"{older + 1} step{'s' if older else ''} back" if hunt.steps_run else "none yet"
    parts.append(f"snapshots: {back}, {nbytes / 2**20:,.1f} MiB")
    parts += hunt.gauges.notes[:2]
    return " · ".join(parts)


def _tensors(here: Here) -> str:
    name = {AFTER: "output", BACKWARD: "gradient"}.get(here.phase, "input")
    rows = []
    for index, tensor in enumerate(list(here.tensors)[:_MOST_TENSORS]):
        counted = histogram(tensor)
        bad = ", ".join(
            f"{count:,} {told}"
            for count, told in ((counted.nan, "NaN"), (counted.posinf + counted.neginf, "Inf"))
            if count
        )
        cells = (
            name if index == 0 else f"{name} {index + 1}",
            dtype_name(tensor.dtype),
            str(list(tensor.shape)),
            wording.number(counted.absmax),
            f"{counted.zero_share:.0%}",
            bad or counted.note or "finite",
        )
        mark = ' class="nh-alarm"' if bad else ""
        rows.append(f"<tr{mark}>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>")
    if not rows:
        return f"<div>no floating-point tensor among the {name}s here</div>"
    head = "".join(
        f'<th scope="col">{h}</th>' for h in ("", "dtype", "shape", "largest", "zeros", "values")
    )
    return (
        f'<table aria-label="tensors here"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
