"""Turns one observed step into a finding: which operation, line and module."""

from __future__ import annotations

import dataclasses

from nanhunt.core.locate.descent import Descent, Origin
from nanhunt.core.locate.starting_tensors import Outside
from nanhunt.core.observe import op_table
from nanhunt.core.observe.closeup import Closeup
from nanhunt.core.observe.observer import Observer
from nanhunt.core.observe.op_records import Birth, Context, OpRecord
from nanhunt.core.program.source_lines import Stack, package_of
from nanhunt.core.watch.step_facts import Sink, StepFacts
from nanhunt.records.report import Finding, Source

_REACHES_SHOWN = 12
_DECISIONS_ASKED = 16


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the observation of a step says: its sink, origin and acquittals.

    Attributes:
        origin: the first value that mattered, or None when nothing bad was seen.
        sinks: what descends from it.
        acquitted: names of buffers that hold nothing but a mask.
    """

    origin: Origin | None
    sinks: tuple[Sink, ...] = ()
    acquitted: tuple[str, ...] = ()


def judge(observer: Observer, facts: StepFacts, never_masks: frozenset[int]) -> Verdict:
    """Follows every sink of an observed step to its origin and picks the earliest."""
    descent = Descent(observer, never_masks)
    best: Origin | None = None
    reached: list[Sink] = []
    acquitted: list[str] = []
    candidates: list[tuple[Sink, list[Origin]]] = []
    for sink in facts.sinks:
        origins = descent.of_sink(sink)
        harmless = all(o.innocent or (o.of_masks and not sink.nan) for o in origins)
        if sink.kind == "buffer" and origins and harmless:
            acquitted.append(sink.name)
        elif origins:
            candidates.append((sink, origins))
    if not candidates:
        candidates = _last_resorts(observer, facts, descent)
    for sink, origins in candidates:
        reached.append(sink)
        if best is None or origins[0].order < best.order:
            best = origins[0]
    return Verdict(best, tuple(reached), tuple(acquitted))


def _last_resorts(
    observer: Observer, facts: StepFacts, descent: Descent
) -> list[tuple[Sink, list[Origin]]]:
    """Sinks of a step that failed, returned a bad number or was skipped by its own loop."""
    failed = observer.failed
    if failed is not None:
        origins = [origin for origin in descent.of_inputs(failed) if not origin.innocent]
        if origins:
            return [_looked_at(f"the failing {failed.op}", failed, origins)]
    decisions = observer.decisions if facts.suspects or not facts.backwards else []
    for record in reversed(decisions[-_DECISIONS_ASKED:]):
        origins = descent.of_inputs(record)
        if record.packet in op_table.COMPARISONS:
            origins = _made_by_arithmetic(origins)
        if origins:
            return [_looked_at("the value the loop looks at", record, origins)]
    for sink in facts.held:
        origins = _made_by_arithmetic(descent.of_sink(sink))
        if origins:
            return [(sink, origins)]
    return []


def _looked_at(name: str, record: OpRecord, origins: list[Origin]) -> tuple[Sink, list[Origin]]:
    return Sink("operation", name, None, 0, 0, record.index), origins


def _made_by_arithmetic(origins: list[Origin]) -> list[Origin]:
    """Without what was written down: the best loss so far may well begin at infinity."""
    made = [origin for origin in origins if origin.source == "arithmetic" and not origin.innocent]
    return [origin for origin in made if not origin.of_masks]


def closeup_of(record: OpRecord | None) -> Closeup | None:
    """What to look at in a second observation."""
    if record is None:
        return None
    forward = record.context.forward
    return Closeup(record.index, record.op, forward.index if forward else None)


def finding_of(
    verdict: Verdict, step: int, closeup: Closeup | None, outside: Outside | None
) -> Finding:
    """Writes down a verdict with its evidence."""
    origin = verdict.origin
    assert origin is not None
    record = origin.record
    context = record.context if record else None
    reaches = _reaches(verdict.sinks)
    seen = closeup.main if closeup is not None and closeup.seen else None
    finding = Finding(
        severity="critical",
        kind=origin.kind,
        phase=context.phase if context else "state",
        step=step,
        module=context.place.module if context and context.place else None,
        call=context.place.call if context and context.place else None,
        op=record.op if record else None,
        node=context.node if context else None,
        source=_source(context),
        stack=_stack(context),
        tensor=_poisoned_tensor(verdict.sinks),
        inputs=seen.inputs if seen else (),
        outputs=seen.outputs if seen else (),
        frames=closeup.frames if closeup is not None and seen else (),
        reaches=reaches,
        evidence=(*_in_library(context), *_evidence(origin, closeup)),
    )
    if origin.external:
        return _external_finding(finding, outside)
    return dataclasses.replace(finding, explanation=_explanation(finding, origin))


def sink_finding(facts: StepFacts, step: int) -> Finding:
    """A finding that only says what was bad at the end, for a step that cannot be replayed."""
    phases = {"loss": "forward", "gradient": "backward", "parameter": "optimizer"}
    first = facts.sinks[0] if facts.sinks else None
    seen = dict.fromkeys(str(sink) for sink in facts.sinks)  # some are looked at more than once
    names = list(seen)[:_REACHES_SHOWN] or facts.suspects
    return Finding(
        severity="critical",
        kind="nan" if first is None or first.nan else "inf",
        phase=phases.get(first.kind, "state") if first else "forward",
        step=step,
        tensor=first.name if first and first.kind in ("parameter", "buffer", "state") else None,
        reaches=tuple(names),
        explanation="It was seen at the end of the step; which operation made it is not known.",
    )


def birth_finding(birth: Birth, step: int) -> Finding:
    """The finding for an operation that made ComplexHalf out of something else."""
    context = birth.record.context
    halves = [stats for stats in birth.inputs if stats.dtype == "float16"]
    made_of = f"its input is {halves[0].dtype}" if halves else "none of its inputs is"
    return Finding(
        severity="critical",
        kind="complex_half",
        phase=context.phase,
        step=step,
        module=context.place.module if context.place else None,
        call=context.place.call if context.place else None,
        op=birth.record.op,
        source=_source(context),
        stack=_stack(context),
        evidence=_in_library(context),
        inputs=birth.inputs,
        outputs=birth.outputs,
        frames=birth.frames,
        explanation=(
            f"{birth.record.op} returned ComplexHalf (complex32): {made_of}. Its parts overflow "
            "beyond 65,504 and few operations support it."
        ),
    )


def swallowed_findings(observer: Observer, step: int, never_masks: frozenset[int]) -> list[Finding]:
    """Warnings: overflows made by arithmetic that a later operation turned into finite numbers."""
    descent = Descent(observer, never_masks)
    findings: dict[tuple[str, Source | None], Finding] = {}
    for record in observer.swallowed:
        if not _counts_on_values(record.context):
            continue
        for origin in descent.of_inputs(record):
            made = origin.record
            if origin.kind != "inf" or origin.source != "arithmetic" or made is None:
                continue
            if made.packet in op_table.SINGULAR or made.of_zero or origin.of_masks:
                continue
            if not _counts_on_values(made.context):
                continue
            meant = made.packet in op_table.MEANT_TO_BE_BOUNDED
            if meant and record.packet in op_table.BOUNDS:
                continue
            source = _source(made.context)
            findings.setdefault(
                (made.op, source),
                Finding(
                    severity="warning",
                    kind="inf",
                    phase=made.context.phase,
                    step=step,
                    module=made.context.place.module if made.context.place else None,
                    call=made.context.place.call if made.context.place else None,
                    op=made.op,
                    source=source,
                    stack=_stack(made.context),
                    evidence=_in_library(made.context),
                    explanation=(
                        f"{made.op} overflowed to Inf and {record.op} turned that into a finite "
                        "number: the result is wrong although nothing looks bad."
                    ),
                ),
            )
    return list(findings.values())


def _counts_on_values(context: Context) -> bool:
    """Whether an operation belongs to the forward pass, or to a norm that clips gradients."""
    return context.phase == "forward" or (
        context.phase == "optimizer" and context.stack.part == "clip"
    )


def _reaches(sinks: tuple[Sink, ...]) -> tuple[str, ...]:
    first = [sink for sink in sinks if sink.kind in ("loss", "gradient", "buffer")]
    # Parameters and optimizer states follow from gradients: they are named when they are alone.
    names = list(dict.fromkeys(str(sink) for sink in first or sinks))
    if len(names) > _REACHES_SHOWN:
        names = [*names[:_REACHES_SHOWN], f"and {len(names) - _REACHES_SHOWN} more"]
    return tuple(names)


def _poisoned_tensor(sinks: tuple[Sink, ...]) -> str | None:
    """The first poisoned tensor, when nothing but state is bad."""
    if any(sink.kind not in ("buffer", "parameter", "state") for sink in sinks):
        return None
    return sinks[0].name if sinks else None


def _source(context: Context | None) -> Source | None:
    stack = _stack(context)
    return stack[-1] if stack else None


def _stack(context: Context | None) -> tuple[Source, ...]:
    """The user's frames; for the backward of an operation, those of its forward."""
    meant = _meant(context)
    return meant[0].sources(meant[1]) if meant is not None else ()


def _meant(context: Context | None) -> tuple[Stack, int] | None:
    """The stack that tells where an operation was written, and how many of its lines to skip.

    In a tensor hook, and in activation checkpointing's second pass, it is the running code
    itself that is meant. For a custom `autograd.Function` it is the line that applied it.
    """
    if context is None:
        return None
    here, forward = context.stack, context.forward
    if context.phase != "backward" or context.stack.recompute or forward is None:
        return here, 0
    in_hook = here.inside_engine and not here.before_apply
    if in_hook:
        return here, 0
    return forward.stack, forward.stack.before_apply


def _in_library(context: Context | None) -> tuple[str, ...]:
    """Says that an operation stands in an installed package, and where."""
    meant = _meant(context)
    line = meant[0].library(meant[1]) if meant is not None else None
    if line is None:
        return ()
    return (f"the operation is in {package_of(line.file)}:{line.line}: `{line.code}`",)


def _evidence(origin: Origin, closeup: Closeup | None) -> tuple[str, ...]:
    facts = []
    for mask in origin.masks[:3]:
        if mask.record is not None and not mask.external:
            source = _source(mask.record.context)
            line = f" in `{source.code}` (line {source.line})" if source else ""
            facts.append(f"the -Inf it met was written on purpose by {mask.record.op}{line}")
        else:
            facts.append("the -Inf it met came in from outside the step, as a mask does")
    if origin.source == "memory":
        facts.append("the memory was never written: it holds whatever was there before")
    if closeup is not None and not closeup.seen:
        facts.append("a second observation ran other operations, so no statistics can be shown")
    return tuple(facts)


def _explanation(finding: Finding, origin: Origin) -> str:
    what = "NaN" if origin.kind == "nan" else "Inf"
    if origin.source == "constant":
        return f"{finding.op} wrote {what} as a constant, and it was not meant as a mask only."
    if origin.of_masks:
        return f"{finding.op} met a mask's -Inf and returned +Inf."
    if origin.masks:
        return f"{finding.op} turned a mask's -Inf into NaN."
    bad = sum(stats.bad for stats in finding.outputs)
    total = sum(stats.numel for stats in finding.outputs)
    count = f" in {bad:,} of {total:,} elements" if bad else ""
    return f"{finding.op} got finite inputs and returned {what}{count}."


def _external_finding(finding: Finding, outside: Outside | None) -> Finding:
    if outside is None:
        return dataclasses.replace(
            finding,
            phase="data",
            explanation="The value was already bad when it entered the step; where it came from "
            "could not be seen.",
        )
    stats = outside.stats
    first = f", the first at {list(stats.first_bad)}" if stats.first_bad is not None else ""
    counts = ", ".join(
        f"{count:,} {word}"
        for count, word in ((stats.nan, "NaN"), (stats.posinf, "+Inf"), (stats.neginf, "-Inf"))
        if count
    )
    state = outside.role in ("parameter", "buffer", "state", "gradient")
    return dataclasses.replace(
        finding,
        kind="poisoned_state" if state else finding.kind,
        phase="state" if state else "data",
        module=outside.module if state and outside.module is not None else finding.module,
        tensor=outside.name,
        inputs=(stats, *finding.inputs),
        explanation=(
            f"{outside.name} was already bad when the step began: {counts or 'bad values'} among "
            f"{stats.numel:,} elements{first}."
        ),
    )
