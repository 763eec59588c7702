"""Names of the functions that cast a tensor, as a program calls them above autograd."""

from __future__ import annotations

# Their name says it: the result is in half precision.
TO_HALF = frozenset({"half", "bfloat16"})
# May end in half precision, as their arguments say: where a cast in the program can be left out.
MAY_CAST_TO_HALF = TO_HALF | {"to", "type", "type_as"}
# Written casts of any kind, and reading `.data` or `.grad` (`__get__`), which the same line may
# do: when a cast comes from one of these it was not autocast that made it.
NOT_BY_AUTOCAST = MAY_CAST_TO_HALF | {"float", "double", "__get__"}
# Give a new tensor and leave the old one: lost, when nobody takes what they return.
MOVES = TO_HALF | {"to", "type", "float", "double", "cuda", "cpu", "detach", "contiguous"}
