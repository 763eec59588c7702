"""A story as plain text: the verdict first, at most 100 columns."""

from __future__ import annotations

import textwrap

from nanhunt.render.story import Story, Table

WIDTH = 100


def text(story: Story, lines: int) -> str:
    """Renders a story for a terminal or a log, in at most so many lines."""
    return "\n".join(_lines(story, lines))


def _lines(story: Story, most: int) -> list[str]:
    lines = [_cut(f"{story.glyph} {story.verdict}")]
    if story.code:
        lines.append(_cut(f"    {story.code}"))
    for label, value in story.facts:
        lines += _fact(label, value)
    tail = [_cut(f"  other: {line}") for line in story.others]
    tail += [line for note in story.notes for line in _fact("note", note)]
    lines = _shorten(lines, most // 2)
    tail = _shorten(tail, 5)
    lines += _change(story)
    room = most - len(lines) - len(tail)
    for table in story.tables:
        drawn = _table(table, room)
        lines += drawn
        room -= len(drawn)
    return lines + tail


def _change(story: Story) -> list[str]:
    if story.change is None:
        return []
    code = []
    for line in story.change.code.splitlines():
        margin = line[: len(line) - len(line.lstrip())]
        indents = (f"    {margin}", f"    {margin}    ")
        code += textwrap.wrap(
            line.strip(), WIDTH, initial_indent=indents[0], subsequent_indent=indents[1]
        )
    return [f"  {story.change.caption}:", *_shorten(code, 4)]


def _fact(label: str, value: str) -> list[str]:
    first, rest = f"  {label + ':':10} ", " " * 13
    return textwrap.wrap(value, WIDTH, initial_indent=first, subsequent_indent=rest, max_lines=2)


def _table(table: Table, room: int) -> list[str]:
    """Caption, header and as many rows as fit; nothing when that is too few."""
    if room < 3:
        return []
    shown = table.rows[: room - 2] if table.first else table.rows[-(room - 2) :]
    left = len(table.rows) - len(shown)
    which = "more" if table.first else "earlier"
    caption = f"  {table.caption}" + (f" ({left} {which} rows left out)" if left else "")
    cells = [table.headers, *shown]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.headers))]
    rows = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]
    return [_cut(caption), *(_cut(f"    {row.rstrip()}") for row in rows)]


def _shorten(lines: list[str], most: int) -> list[str]:
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], f"  ... {len(lines) - most + 1} more lines in the HTML report"]


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
