"""GradScaler's skipped steps: warm-up, or a scale that keeps falling."""

from __future__ import annotations

from nanhunt.core.watch.step_facts import StepFacts


class ScalerSkips:
    """Counts GradScaler's skips in a row, and says when one is worth a replay.

    A new GradScaler starts at 65,536 and halves its scale until gradients fit: a handful of
    skipped steps in a row is its normal warm-up (torch.amp documentation). Whether a skip is
    more than that is asked of a replay with scale 1, at the 1st, 2nd, 4th, 8th ... in a row.
    """

    def __init__(self) -> None:
        self._in_a_row = 0

    def note(self, facts: StepFacts) -> list[str]:
        """Counts this step; returns remarks for the report.

        A step that leaves out its update by hand, or replaces what overflowed, has skipped too.
        """
        if facts.skipped or facts.overflowed:
            self._in_a_row += 1
        elif facts.stepped:
            self._in_a_row = 0
        if self._in_a_row == 16:
            return ["GradScaler skipped 16 steps in a row: its scale keeps falling"]
        return []

    def worth_a_probe(self) -> bool:
        """Whether to replay this step with a loss scale of 1."""
        return self._in_a_row & (self._in_a_row - 1) == 0
