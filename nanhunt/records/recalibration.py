"""What a recalibration of running statistics did."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from nanhunt.records.record import Record
from nanhunt.render.recalibration import tell_recalibration

if TYPE_CHECKING:
    from nanhunt.render.story import Story


@dataclasses.dataclass(frozen=True)
class Recalibration(Record):
    """What `nanhunt.recalibrate` did.

    Attributes:
        layers: module paths of the layers whose statistics are new.
        batches: batches that went into them.
        skipped: batches whose statistics were not finite and that were left out.
    """

    FORMAT: ClassVar[str] = "nanhunt.recalibration"

    layers: tuple[str, ...]
    batches: int
    skipped: int

    def story(self) -> Story:
        """How many layers, from how many batches."""
        return tell_recalibration(self)
