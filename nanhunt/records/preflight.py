"""What a preflight found: frozen records of numbers and strings."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from nanhunt.records.record import Record
from nanhunt.render.preflight import tell_preflight

if TYPE_CHECKING:
    from nanhunt.render.story import Story
from nanhunt.records.report import Source


@dataclasses.dataclass(frozen=True)
class Fact:
    """One thing worth knowing before the training goes on.

    Attributes:
        kind: stable id, e.g. `"result_thrown_away"`.
        severity: `"warning"` (somebody should look at it) or `"info"`.
        text: one sentence.
        source: the line, where there is one.
        names: parameters or modules concerned.
    """

    kind: str
    severity: str
    text: str
    source: Source | None = None
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ModuleFacts:
    """What one module put out in the observed step.

    Attributes:
        module: qualified name, `""` the root.
        kind: its class.
        calls: how often it ran.
        dtypes: dtype and number of its own operations' results, e.g. `("float16", 3)`.
        absmax: largest magnitude of its outputs, or None.
        headroom: powers of two between that and the dtype's largest finite number, or None.
    """

    module: str
    kind: str
    calls: int
    dtypes: tuple[tuple[str, int], ...] = ()
    absmax: float | None = None
    headroom: float | None = None


@dataclasses.dataclass(frozen=True)
class AutocastRegion:
    """A region of the program in which autocast was switched on or off.

    Attributes:
        device: device type, e.g. `"cuda"`.
        dtype: what it casts to, e.g. `"float16"`.
        enabled: False for a region that switches it off.
        times: how often it was entered.
        source: the line that entered it; None when it was on before the step began.
    """

    device: str
    dtype: str
    enabled: bool
    times: int
    source: Source | None = None


@dataclasses.dataclass(frozen=True)
class ParameterCount:
    """Parameters of the whole model (`name` is empty) or of one top module.

    Attributes:
        name: the top module.
        total, trainable: number of elements; shared parameters count once.
        dtypes: dtype and number of elements.
    """

    name: str
    total: int
    trainable: int
    dtypes: tuple[tuple[str, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class Preflight(Record):
    """The result of `nanhunt.preflight`.

    Attributes:
        title: the model in a few words.
        facts: warnings first.
        modules: in the order in which they first ran.
        regions: every autocast region.
        parameters: the whole model first, then its top modules.
        notes: what could not be done.
    """

    FORMAT: ClassVar[str] = "nanhunt.preflight"
    MIME_TYPE: ClassVar[str] = "application/vnd.nanhunt.preflight.v1+json"

    title: str
    facts: tuple[Fact, ...] = ()
    modules: tuple[ModuleFacts, ...] = ()
    regions: tuple[AutocastRegion, ...] = ()
    parameters: tuple[ParameterCount, ...] = ()
    notes: tuple[str, ...] = ()

    def story(self) -> Story:
        """Warnings first, then what ran in which precision."""
        return tell_preflight(self)

    @property
    def warnings(self) -> tuple[Fact, ...]:
        """The facts that somebody should look at."""
        return tuple(fact for fact in self.facts if fact.severity == "warning")
