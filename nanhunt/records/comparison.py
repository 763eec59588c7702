"""What a comparison with a baseline found: frozen records."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from nanhunt.records.record import Record
from nanhunt.render.comparison import tell_comparison

if TYPE_CHECKING:
    from nanhunt.render.story import Story
from nanhunt.records.report import Source


@dataclasses.dataclass(frozen=True)
class OpSide:
    """One operation of one of the two programs.

    Attributes:
        op: e.g. `"aten.mm.default"`.
        call: the torch function it belongs to, e.g. `"torch.stft"`, or an empty string.
        module: qualified name, `""` the root, None outside any.
        shape, dtype: of its first output.
        absmax: largest magnitude of the finite elements, or None.
        source: the user's line.
    """

    op: str
    call: str
    module: str | None
    shape: tuple[int, ...]
    dtype: str
    absmax: float | None = None
    source: Source | None = None


@dataclasses.dataclass(frozen=True)
class Pair:
    """An operation of the baseline beside its counterpart, or one that has none.

    Attributes:
        status: `"identical"` (same bits), `"rounding"` (within the tolerance), `"different"`,
            `"shape"` (of other shapes), `"only in the baseline"`, `"only in the modified"`.
        baseline, modified: the two sides.
        difference: largest difference of the values looked at.
        tolerance: what the dtypes themselves explain.
    """

    status: str
    baseline: OpSide | None
    modified: OpSide | None
    difference: float | None = None
    tolerance: float | None = None

    @property
    def same_dtype(self) -> bool:
        """Whether both sides exist and have the same dtype."""
        both = self.baseline is not None and self.modified is not None
        return both and self.baseline.dtype == self.modified.dtype  # type: ignore[union-attr]


@dataclasses.dataclass(frozen=True)
class Comparison(Record):
    """The result of `nanhunt.compare`.

    Attributes:
        title: both models in a few words.
        first_dtype: the first pair of different dtypes.
        first_value: the first pair whose values differ beyond the tolerance.
        pairs: everything, in the order of the baseline.
        weights_shared: parameters and buffers that were given the baseline's values.
        weights_unmatched: those of the modified model that have no counterpart.
        inputs: `"shared"`, or why the inputs were not.
        notes: what could not be done.
    """

    FORMAT: ClassVar[str] = "nanhunt.comparison"
    LINES: ClassVar[int] = 40

    title: str
    first_dtype: Pair | None = None
    first_value: Pair | None = None
    pairs: tuple[Pair, ...] = ()
    weights_shared: int = 0
    weights_unmatched: tuple[str, ...] = ()
    inputs: str = "shared"
    notes: tuple[str, ...] = ()

    def story(self) -> Story:
        """The first differences, then every pair."""
        return tell_comparison(self)

    def identical(self, call: str) -> bool:
        """Whether all operations of a torch function, e.g. `"stft"`, gave the same bits."""
        mine = [
            pair
            for pair in self.pairs
            if pair.baseline is not None and pair.baseline.call.rpartition(".")[2] == call
        ]
        return bool(mine) and all(pair.status == "identical" for pair in mine)
