"""Writes a recalibration as a `Story`, from which text and HTML are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanhunt.render.story import Story, Table
from nanhunt.render.wording import visible

if TYPE_CHECKING:
    from nanhunt.records.recalibration import Recalibration


def tell_recalibration(done: Recalibration) -> Story:
    """Turns a recalibration into its story."""
    left = f", {done.skipped:,} left out as not finite" if done.skipped else ""
    layers = tuple((visible(layer, 90),) for layer in done.layers)
    return Story(
        "△" if done.skipped else "✓",
        "warning" if done.skipped else "healthy",
        f"{len(done.layers):,} layers computed anew from {done.batches:,} batches{left}",
        tables=(Table("Layers with new statistics", ("layer",), layers, first=True),),
    )
