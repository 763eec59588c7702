"""`Story`: a record in words and tables, from which every renderer works."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with a caption.

    Attributes:
        first: whether the first rows matter most when there is not room for all.
    """

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    first: bool = False


@dataclasses.dataclass(frozen=True)
class CodeSnippet:
    """Code that the reader may take over, and where it goes."""

    caption: str
    code: str


@dataclasses.dataclass(frozen=True)
class Story:
    """A record in words, in the order of importance.

    Attributes:
        glyph, status: a sign and the word for it; colour alone never carries meaning.
        verdict: the first line.
        facts: label and value, most important first.
        code: the culprit line's text, or an empty string.
        change: what to write instead, if that is known.
        tables: evidence, most important first.
        others: other findings, one line each.
        notes: what could not be done, costs.
    """

    glyph: str
    status: str
    verdict: str
    facts: tuple[tuple[str, str], ...] = ()
    code: str = ""
    change: CodeSnippet | None = None
    tables: tuple[Table, ...] = ()
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
