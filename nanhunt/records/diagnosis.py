"""What the doctor found in a checkpoint: frozen records of numbers and strings, and their JSON."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from nanhunt.records.record import Record
from nanhunt.render.diagnosis import tell_diagnosis

if TYPE_CHECKING:
    from nanhunt.render.story import Story


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or odd, in a checkpoint.

    Attributes:
        kind: id of the rule, e.g. `"not_finite"`; `nanhunt.checkpoints.judge.rules` has its source.
        severity: `"critical"` (training or inference with it goes bad), `"warning"` (somebody
            should look at it) or `"info"`.
        role: what it concerns: `"weight"`, `"buffer"`, `"optimizer"`, `"scaler"` or `"file"`.
        key: where it is in the file, with dots; empty for the file as a whole.
        text: one sentence.
        file: the file within a folder; empty when the path is one file.
        shape: of the tensor; empty for scalars.
        dtype: e.g. `"float16"`, or empty.
        nan, posinf, neginf: elements of each kind; a complex element counts for each bad part.
        first_bad: indices of the first bad elements, three at most.
        repair: what a repair does about it; empty when nothing can be done to the file.
        advice: what to do beside or instead of that.
    """

    kind: str
    severity: str
    role: str
    key: str
    text: str
    file: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    first_bad: tuple[tuple[int, ...], ...] = ()
    repair: str = ""
    advice: str = ""


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """One way in which a checkpoint and a model do not fit.

    Attributes:
        kind: `"missing"`, `"unexpected"`, `"shape"`, `"dtype"`, `"prefix"` or `"tied"`.
        severity: `"critical"` (`load_state_dict` refuses it), `"warning"` or `"info"`.
        text: one sentence.
        keys: the keys concerned, as the model calls them where it has them.
        fix: a line of code that mends it, or an empty string.
    """

    kind: str
    severity: str
    text: str
    keys: tuple[str, ...] = ()
    fix: str = ""


@dataclasses.dataclass(frozen=True)
class Match:
    """A checkpoint beside a model.

    Attributes:
        model: the model's class.
        under: the key under which the state dict was found; empty for the file's root.
        mismatches: worst first.
        keys: how many keys the model has.
        found: how many of them the file holds with the same shape.
        model_parameters, file_parameters: numbers of elements; shared tensors count once, and
            buffers that the model knows do not count.
    """

    model: str
    under: str
    mismatches: tuple[Mismatch, ...]
    keys: int
    found: int
    model_parameters: int
    file_parameters: int

    @property
    def fits(self) -> bool:
        """Whether `load_state_dict` takes it as it is, further names of tied weights apart."""
        return not any(mismatch.severity == "critical" for mismatch in self.mismatches)


@dataclasses.dataclass(frozen=True)
class RepairChange:
    """One tensor or number that a repair changed.

    Attributes:
        key: where it is in the file.
        entries: how many of its elements were changed.
        text: into what.
    """

    key: str
    entries: int
    text: str


@dataclasses.dataclass(frozen=True)
class Repair:
    """A repaired copy.

    Attributes:
        path: the new file or folder; empty when there was nothing to repair.
        changes: everything that is different in it, to the bit.
        left: keys that are still bad in it.
    """

    path: str
    changes: tuple[RepairChange, ...] = ()
    left: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class TimelinePoint:
    """One checkpoint of a series that was read.

    Attributes:
        name: its file or folder name.
        healthy: None when it could not be read.
        text: what was found.
    """

    name: str
    healthy: bool | None
    text: str


@dataclasses.dataclass(frozen=True)
class Timeline:
    """A folder of checkpoints, searched for the moment when they went bad.

    Attributes:
        length: how many checkpoints the series has.
        order: what it was ordered by, e.g. `"the numbers in the names"`.
        looks: those that were read, in the order of reading.
        last_healthy: the newest healthy one before the first bad one, or an empty string.
        first_bad: the oldest bad one, or an empty string.
    """

    length: int
    order: str
    looks: tuple[TimelinePoint, ...]
    last_healthy: str = ""
    first_bad: str = ""


@dataclasses.dataclass(frozen=True)
class Diagnosis(Record):
    """The result of `nanhunt.doctor`.

    Attributes:
        path: what was examined.
        layout: the format in words, e.g. `"safetensors"`.
        problems: worst first.
        tensors: how many tensors there are; a shared one counts under each of its names.
        elements: number of elements in floating-point, complex and integer tensors.
        nbytes: bytes of tensor data that were read.
        dtypes: dtype and number of elements.
        match: the checkpoint beside a model, if one was given.
        timeline: for a series of checkpoints; `problems` are then those of the first bad one,
            or of the newest if none is bad.
        repair: what was written, if a repair was asked for.
        notes: what could not be looked at.
        seconds: how long it took.
    """

    FORMAT: ClassVar[str] = "nanhunt.diagnosis"

    path: str
    layout: str
    problems: tuple[Problem, ...] = ()
    tensors: int = 0
    elements: int = 0
    nbytes: int = 0
    dtypes: tuple[tuple[str, int], ...] = ()
    match: Match | None = None
    timeline: Timeline | None = None
    repair: Repair | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def story(self) -> Story:
        """The verdict, what is bad, and what was repaired."""
        return tell_diagnosis(self)

    @property
    def healthy(self) -> bool:
        """Whether nothing is critical, in the file and beside the model."""
        fits = self.match is None or self.match.fits
        return fits and not any(problem.severity == "critical" for problem in self.problems)

    @property
    def repairable(self) -> bool:
        """Whether a repair removes everything critical that is in the file."""
        return all(problem.repair for problem in self.problems if problem.severity == "critical")

    @property
    def unreadable(self) -> bool:
        """Whether it is a series of which no checkpoint could be read."""
        timeline = self.timeline
        return timeline is not None and not (timeline.last_healthy or timeline.first_bad)

    @property
    def mended(self) -> bool:
        """Whether it is healthy, or a repaired copy was written that is."""
        repaired = self.repair is not None and bool(self.repair.path) and not self.repair.left
        return (self.healthy and not self.unreadable) or repaired
