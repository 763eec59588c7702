"""The report as text and HTML: the same story, safe with whatever the user's names hold."""

from __future__ import annotations

import html.parser
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanhunt.records.report import Report, Source
from nanhunt.render.html import page
from tests.render.reports import REPORTS, finding, report

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = [
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "\" onmouseover='x' & &lt;b&gt;",
    "\x1b[31mred\x07\r\nnext",
    "a\u202eb\u2066c",
    "\ud800 lone",
]


class Reader(html.parser.HTMLParser):
    """Collects text and tags, and fails on tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("kind", ["txt", "html"])
def test_the_rendering_is_the_golden_one(name: str, kind: str) -> None:
    """NANHUNT_GOLDEN=1 writes the files anew; read the difference before you commit it."""
    made = str(REPORTS[name]) if kind == "txt" else REPORTS[name].to_html()
    path = GOLDEN / f"{name}.{kind}"
    if os.environ.get("NANHUNT_GOLDEN"):
        path.write_text(made + "\n", encoding="utf-8")
    assert made + "\n" == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", REPORTS)
def test_the_verdict_comes_first_and_the_text_is_short(name: str) -> None:
    lines = str(REPORTS[name]).splitlines()
    assert REPORTS[name].story().verdict[:80] in lines[0]
    assert len(lines) < 25
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("name", REPORTS)
def test_html_holds_every_fact_of_the_story(name: str) -> None:
    words = " ".join(Reader(REPORTS[name].to_html()).words)
    story = REPORTS[name].story()
    facts = [story.verdict, story.code, *story.others, *story.notes]
    facts += [value for _, value in story.facts]
    facts += [cell for table in story.tables for row in table.rows for cell in row]
    for fact in facts:
        assert fact in words


@pytest.mark.parametrize("name", REPORTS)
def test_text_holds_every_leading_fact_of_the_story(name: str) -> None:
    text = " ".join(str(REPORTS[name]).split())
    story = REPORTS[name].story()
    for label, value in story.facts:
        assert f"{label}: {' '.join(value.split())[:60]}" in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_from_the_program_are_never_markup_or_terminal_codes(hostile: str) -> None:
    line = Source(hostile, 1, hostile, hostile)
    bad = report(
        finding(
            module=hostile,
            source=line,
            stack=(line, line),
            tensor=hostile,
            reaches=(hostile,),
            explanation=hostile,
            op=hostile,
            node=hostile,
            phase="optimizer",
        ),
        title=hostile,
        notes=(hostile,),
    )
    plain_tags = sorted(set(Reader(report(finding(), notes=("x",)).to_html()).tags))
    assert sorted(set(Reader(bad.to_html()).tags)) == plain_tags
    for made in (str(bad), bad.to_html(), page(bad.story())):
        made.encode("utf-8")
        assert "\x1b" not in made
        assert "\u202e" not in made
    for made in (bad.to_html(), page(bad.story())):
        assert "<script" not in made
        assert "<img" not in made


def test_the_page_needs_no_network_and_no_script() -> None:
    made = page(REPORTS["two_findings"].story())
    assert made.startswith("<!doctype html>")
    assert "script" not in Reader(made).tags
    assert "http" not in made
    assert "prefers-color-scheme" in made


def test_the_bundle_holds_every_form() -> None:
    bundle = REPORTS["forward"]._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", Report.MIME_TYPE}
    assert Report.from_dict(bundle[Report.MIME_TYPE]) == REPORTS["forward"]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.lists(st.text(max_size=80), max_size=40), st.integers(0, 10**9))
def test_any_words_fit_into_25_lines_of_100_columns(
    words: str, names: list[str], step: int
) -> None:
    made = str(
        report(
            finding(
                explanation=words,
                module=words,
                reaches=tuple(names),
                evidence=tuple(names),
                step=step,
            ),
            *[finding(severity="warning", op=name) for name in names],
            notes=tuple(names),
        )
    )
    lines = made.split("\n")
    assert len(lines) < 25
    assert max(map(len, lines)) <= 100
    assert lines == made.splitlines()
