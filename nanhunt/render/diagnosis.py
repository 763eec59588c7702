"""Writes a diagnosis as a `Story`, from which text and HTML are made."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from nanhunt.render import wording
from nanhunt.render.story import CodeSnippet, Story, Table

if TYPE_CHECKING:
    from nanhunt.records.diagnosis import Diagnosis, Match, Problem, Repair, Timeline

_ALIKE_NAMED = 3
_SENTENCES, _ROWS = 20, 500
_GLYPHS = {"critical": "✗", "warning": "△", "healthy": "✓"}
_ROLES = {
    "weight": ("weight", "weights"),
    "buffer": ("buffer", "buffers"),
    "optimizer": ("optimizer state", "optimizer states"),
    "scaler": ("loss scale", "loss scales"),
    "file": ("fault of the file", "faults of the file"),
}


def tell_diagnosis(diagnosis: Diagnosis) -> Story:
    """Turns a diagnosis into its story."""
    facts = _repair_facts(diagnosis.repair) + _timeline_facts(diagnosis.timeline)
    facts += _problem_facts(diagnosis.problems) + _match_facts(diagnosis.match)
    facts += _advice(diagnosis)
    facts.append(("file", f"{wording.visible(diagnosis.path, 150)} ({diagnosis.layout})"))
    facts.append(("holds", _holds(diagnosis)))
    status = _status(diagnosis)
    return Story(
        _GLYPHS[status],
        status,
        _verdict(diagnosis),
        tuple(facts),
        change=_change(diagnosis.match),
        tables=tuple(_tables(diagnosis)),
        notes=tuple(wording.visible(note, 300) for note in diagnosis.notes),
    )


def _status(diagnosis: Diagnosis) -> str:
    if not diagnosis.healthy or diagnosis.unreadable:
        return "critical"
    warned = any(problem.severity == "warning" for problem in diagnosis.problems)
    warned |= diagnosis.match is not None and bool(diagnosis.match.mismatches)
    warned |= bool(_unread(diagnosis.timeline))
    return "warning" if warned else "healthy"


# -- the verdict --------------------------------------------------------------------------------


def _verdict(diagnosis: Diagnosis) -> str:
    timeline = diagnosis.timeline
    if timeline is not None and timeline.first_bad:
        return f"Bad from {wording.visible(timeline.first_bad, 50)} on: {_counted(diagnosis)}"
    if timeline is not None and diagnosis.unreadable:
        return f"None of {timeline.length:,} checkpoints could be read"
    whole = "Healthy series" if timeline is not None else "Healthy"
    if diagnosis.healthy:
        count = sum(problem.severity == "warning" for problem in diagnosis.problems)
        odd = f", {count} thing{'s' if count != 1 else ''} to look at" if count else ""
        unread = _unread(timeline)
        odd += f", but {_names(unread)} could not be read" if unread else ""
        return f"{whole}: {diagnosis.tensors:,} tensors, nothing bad{odd}"
    counted = _counted(diagnosis)
    if counted and _mended(diagnosis):
        return f"Bad, repaired in a copy: {counted}"
    if diagnosis.match is not None and not diagnosis.match.fits:
        fit = f"does not fit {wording.visible(diagnosis.match.model, 40)}"
        return f"{counted}, and it {fit}" if counted else f"It {fit}"
    return f"Bad: {counted}"


def _mended(diagnosis: Diagnosis) -> bool:
    repair = diagnosis.repair
    return repair is not None and bool(repair.path) and not repair.left


def _counted(diagnosis: Diagnosis) -> str:
    """`1 weight (no repair), 2 buffers, 1 loss scale (repairable)`."""
    counted: dict[str, list[str]] = {"no repair": [], "repairable": []}
    for role, (one, many) in _ROLES.items():
        mine = [p for p in diagnosis.problems if p.role == role and p.severity == "critical"]
        if mine:
            count = len({(p.file, p.key, p.text if role == "file" else "") for p in mine})
            can = "repairable" if all(p.repair for p in mine) else "no repair"
            counted[can].append(f"{count:,} {one if count == 1 else many}")
    return ", ".join(f"{', '.join(parts)} ({can})" for can, parts in counted.items() if parts)


# -- facts --------------------------------------------------------------------------------------


def _repair_facts(repair: Repair | None) -> list[tuple[str, str]]:
    if repair is None:
        return []
    left = [("still bad", _names(repair.left))] if repair.left else []
    if not repair.path:
        return [("repair", "nothing was written: there is nothing that could be repaired"), *left]
    elements = sum(change.entries for change in repair.changes)
    told = (
        f"{wording.visible(repair.path, 100)}: {elements:,} elements changed, all else the same to "
        "the bit, read back"
    )
    return [("repair", told), *left]


def _timeline_facts(timeline: Timeline | None) -> list[tuple[str, str]]:
    if timeline is None:
        return []
    facts = []
    if timeline.first_bad:
        facts.append(("first bad", wording.visible(timeline.first_bad, 100)))
        healthy = timeline.last_healthy or "none: the oldest one is bad already"
        facts.append(("healthy", f"last one before it: {wording.visible(healthy, 100)}"))
    elif timeline.last_healthy:
        facts.append(("newest", f"{wording.visible(timeline.last_healthy, 100)}, healthy"))
    reads = len(timeline.looks)
    facts.append(("search", f"{reads} of {timeline.length:,} read, ordered by {timeline.order}"))
    return facts


def _unread(timeline: Timeline | None) -> tuple[str, ...]:
    """Those of a series that could not be read: a run was killed while it wrote its last one."""
    looks = timeline.looks if timeline is not None else ()
    return tuple(look.name for look in looks if look.healthy is None)


def _problem_facts(problems: tuple[Problem, ...]) -> list[tuple[str, str]]:
    """One line for all problems that differ in nothing but the tensor."""
    alike: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        alike.setdefault((problem.severity, problem.role, problem.text), []).append(problem)
    labels = {"critical": "bad", "warning": "look at", "info": "fact"}
    facts = []
    for (severity, _, text), group in list(alike.items())[:_SENTENCES]:
        names = _names(tuple(problem.key or problem.file for problem in group))
        facts.append(
            (labels[severity], wording.visible(text, 300) + (f" ({names})" if names else ""))
        )
    if len(alike) > _SENTENCES:
        facts.append(("more", f"{len(alike) - _SENTENCES:,} further remarks, in to_dict()"))
    return facts


def _names(keys: tuple[str, ...]) -> str:
    named = [wording.visible(key, 70) for key in keys if key]
    more = f" and {len(named) - _ALIKE_NAMED:,} more" if len(named) > _ALIKE_NAMED else ""
    return f"{', '.join(named[:_ALIKE_NAMED])}{more}"


def _match_facts(match: Match | None) -> list[tuple[str, str]]:
    if match is None:
        return []
    under = f" under {wording.visible(match.under, 60)}" if match.under else ""
    counts = f"{match.file_parameters:,} parameters in the file"
    if match.file_parameters != match.model_parameters:
        counts += f", {match.model_parameters:,} in the model"
    facts = [
        (
            "model",
            f"{wording.visible(match.model, 60)}: {match.found:,} of its {match.keys:,} keys are "
            f"in the file{under}; {counts}",
        )
    ]
    for mismatch in match.mismatches:
        shown = ", ".join(wording.visible(key, 60) for key in mismatch.keys[:_ALIKE_NAMED])
        named = f" ({shown})" if mismatch.kind in ("missing", "unexpected") and shown else ""
        facts.append((mismatch.kind, f"{wording.visible(mismatch.text, 250)}{named}"))
    return facts


def _change(match: Match | None) -> CodeSnippet | None:
    fixes = [mismatch.fix for mismatch in match.mismatches if mismatch.fix] if match else []
    if not fixes:
        return None
    return CodeSnippet(
        "Before load_state_dict", "\n".join(wording.visible(f, 200) for f in fixes[:4])
    )


def _advice(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    bad = [problem for problem in diagnosis.problems if problem.severity == "critical"]
    told = Counter(problem.advice for problem in bad if problem.advice)
    facts = [("advice", wording.visible(text, 250)) for text, _ in told.most_common(3)]
    if diagnosis.repair is None and diagnosis.timeline is None and any(p.repair for p in bad):
        facts.insert(0, ("advice", "--fix (fix=True) writes a repaired copy beside it"))
    return facts


def _holds(diagnosis: Diagnosis) -> str:
    dtypes = ", ".join(f"{name} {count:,}" for name, count in diagnosis.dtypes[:5])
    large = diagnosis.nbytes >= 1e9
    size, unit = diagnosis.nbytes / (1e9 if large else 1e6), "GB" if large else "MB"
    return (
        f"{diagnosis.tensors:,} tensors, {size:.3g} {unit}, elements: {dtypes or 'none'}; read in "
        f"{diagnosis.seconds:.2g} s"
    )


# -- tables -------------------------------------------------------------------------------------


def _tables(diagnosis: Diagnosis) -> list[Table]:
    tables = []
    bad = [
        problem for problem in diagnosis.problems if problem.nan + problem.posinf + problem.neginf
    ]
    if bad:
        headers = ("tensor", "dtype and shape", "NaN", "+Inf", "-Inf", "first at", "repair")
        left_out = f" (the first {_ROWS} of {len(bad):,})" if len(bad) > _ROWS else ""
        rows = tuple(map(_row, bad[:_ROWS]))
        tables.append(Table(f"What is not finite{left_out}", headers, rows, first=True))
    if diagnosis.repair is not None and diagnosis.repair.changes:
        tables.append(_changes(diagnosis.repair))
    if diagnosis.timeline is not None:
        tables.append(_looks(diagnosis.timeline))
    return tables


def _changes(repair: Repair) -> Table:
    rows = tuple(
        (wording.visible(c.key, 60), f"{c.entries:,}", wording.visible(c.text, 60))
        for c in repair.changes[:_ROWS]
    )
    count = len(repair.changes)
    left_out = f" (the first {_ROWS} of {count:,})" if count > _ROWS else ""
    return Table(
        f"What the repair changed{left_out}", ("entry", "elements", "change"), rows, first=True
    )


def _looks(timeline: Timeline) -> Table:
    words = {True: "healthy", False: "bad", None: "not read"}
    rows = tuple(
        (wording.visible(look.name, 50), words[look.healthy], wording.visible(look.text, 100))
        for look in timeline.looks
    )
    return Table("Read, in this order", ("checkpoint", "is", "first problem"), rows, first=True)


def _row(problem: Problem) -> tuple[str, ...]:
    first = ", ".join(str(list(index)) for index in problem.first_bad[:1])
    return (
        wording.visible(problem.key, 60),
        f"{wording.visible(problem.dtype, 20)} {list(problem.shape)}",
        f"{problem.nan:,}",
        f"{problem.posinf:,}",
        f"{problem.neginf:,}",
        first or "–",
        "yes" if problem.repair else "no",
    )
