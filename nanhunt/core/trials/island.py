"""The smallest set of modules that must run in float32 for a step to be healthy.

Delta debugging (Zeller and Hildebrandt 2002, "Simplifying and Isolating Failure-Inducing
Input", algorithm ddmin) over the modules that compute in half precision. The result is
1-minimal: taking any module out of it brings the failure back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

MOST_REPLAYS = 64


class GaveUpError(Exception):
    """The search needed more replays than it may have."""


def smallest(modules: Sequence[str], healthy: Callable[[tuple[str, ...]], bool]) -> list[str]:
    """Shrinks a set that makes the step healthy to one that does and has nothing to spare.

    Args:
        modules: a set with which the step is healthy.
        healthy: replays the step with some modules in float32.

    Raises:
        GaveUpError: after too many replays.
    """
    known: dict[frozenset[str], bool] = {frozenset(): False}

    def test(chosen: Sequence[str]) -> bool:
        key = frozenset(chosen)
        if key not in known:
            if len(known) > MOST_REPLAYS:
                raise GaveUpError
            known[key] = healthy(tuple(chosen))
        return known[key]

    current, parts = list(modules), 2
    while len(current) > 1:
        size = -(-len(current) // parts)
        chunks = [current[i : i + size] for i in range(0, len(current), size)]
        rests = [[m for m in current if m not in chunk] for chunk in chunks]
        smaller = next((c for c in chunks if test(c)), None)
        if smaller is not None:
            current, parts = smaller, 2
            continue
        rest = next((r for r in rests if test(r)), None)
        if rest is not None:
            current, parts = rest, max(parts - 1, 2)
        elif size == 1:
            break
        else:
            parts = min(2 * parts, len(current))
    return current
