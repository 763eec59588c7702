"""What a preflight found: frozen records of numbers and strings, and their JSON form."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nanhunt.codec import decode, encode
from nanhunt.errors import ReportFormatError
from nanhunt.report import Source

FORMAT = "nanhunt.preflight"
VERSION = 1


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
class Preflight:
    """The result of `nanhunt.preflight`.

    Attributes:
        title: the model in a few words.
        facts: warnings first.
        modules: in the order in which they first ran.
        regions: every autocast region.
        parameters: the whole model first, then its top modules.
        notes: what could not be done.
    """

    title: str
    facts: tuple[Fact, ...] = ()
    modules: tuple[ModuleFacts, ...] = ()
    regions: tuple[AutocastRegion, ...] = ()
    parameters: tuple[ParameterCount, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[Fact, ...]:
        """The facts that somebody should look at."""
        return tuple(fact for fact in self.facts if fact.severity == "warning")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON data; `from_dict` reads it back."""
        return {"format": FORMAT, "version": VERSION, **encode(self)}

    @classmethod
    def from_dict(cls, data: Any) -> Preflight:
        """Reads what `to_dict` made.

        Raises:
            ReportFormatError: the data is no preflight, of an unknown version, or damaged.
        """
        known = isinstance(data, dict) and data.get("format") == FORMAT
        if not known or data.get("version") != VERSION:
            raise ReportFormatError(
                f"this is not a nanhunt preflight of version {VERSION}; it was written by another "
                "program, or another version of nanhunt"
            )
        return decode(cls, data, "preflight")

    def to_html(self, path: str | Path | None = None) -> str:
        """Returns it as HTML; with `path` also writes a standalone page there."""
        from nanhunt import render

        story = render.tell_preflight(self)
        if path is not None:
            Path(path).write_text(render.story_page(story), encoding="utf-8")
        return render.story_html(story)

    def __str__(self) -> str:
        from nanhunt import render

        return render.story_text(render.tell_preflight(self), lines=60)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": str(self), "text/html": self.to_html()}
