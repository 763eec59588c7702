"""What a preflight saw: a frozen record of numbers and strings, and its JSON form."""

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
class Warned:
    """Something that a person should look at: its kind, one sentence, its line if known."""

    kind: str
    text: str
    source: Source | None = None


@dataclasses.dataclass(frozen=True)
class ModuleFacts:
    """Outputs of one module: how many of each dtype, and the least room to overflow."""

    module: str
    kind: str
    dtypes: dict[str, int]
    absmax: float | None = None
    headroom: float | None = None


@dataclasses.dataclass(frozen=True)
class Region:
    """An autocast region that the step entered, and how often."""

    device: str
    dtype: str
    enabled: bool
    entered: int
    source: Source | None = None


@dataclasses.dataclass(frozen=True)
class HalfBirth:
    """An operation that made ComplexHalf of something else."""

    op: str
    module: str | None = None
    source: Source | None = None


@dataclasses.dataclass(frozen=True)
class ParameterCount:
    """Parameters of one top module; `module` is empty for the whole model."""

    module: str
    total: int
    trainable: int
    dtypes: dict[str, int]


@dataclasses.dataclass(frozen=True)
class NoGradient:
    """Parameters without gradient after backward, and why: frozen, detached, unused, unknown."""

    names: tuple[str, ...]
    why: str
    source: Source | None = None


@dataclasses.dataclass(frozen=True)
class Preflight:
    """One observed step, after which everything was put back."""

    title: str
    warnings: tuple[Warned, ...] = ()
    modules: tuple[ModuleFacts, ...] = ()
    autocast: tuple[Region, ...] = ()
    complex_half: tuple[HalfBirth, ...] = ()
    parameters: tuple[ParameterCount, ...] = ()
    without_gradient: tuple[NoGradient, ...] = ()
    backwards: int = 0
    optimizers: int = 0
    optimizer_steps: int = 0
    skipped_by_scaler: int = 0
    scales: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON data; `from_dict` reads it back."""
        return {"format": FORMAT, "version": VERSION, **encode(self)}

    @classmethod
    def from_dict(cls, data: Any) -> Preflight:
        """Reads what `to_dict` made.

        Raises:
            ReportFormatError: the data is no preflight, of an unknown version, or damaged.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ReportFormatError("this is not a nanhunt preflight: its `format` is missing")
        if data.get("version") != VERSION:
            raise ReportFormatError(
                f"this preflight has version {data.get('version')!r}; this nanhunt reads {VERSION}"
            )
        return decode(cls, data, "preflight")

    def to_html(self, path: str | Path | None = None) -> str:
        """Returns it as HTML; with `path` also writes a standalone page there."""
        from nanhunt.render import preflight

        if path is not None:
            Path(path).write_text(preflight.page(self), encoding="utf-8")
        return preflight.html(self)

    def __str__(self) -> str:
        from nanhunt.render import preflight

        return preflight.text(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": str(self), "text/html": self.to_html()}
