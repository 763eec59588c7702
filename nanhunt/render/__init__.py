"""A report as text, as HTML and as a MIME bundle. Standard library only."""

from __future__ import annotations

from typing import Any

from nanhunt.records.report import MIME_TYPE, Report
from nanhunt.render.comparison import tell_comparison
from nanhunt.render.diagnosis import tell_diagnosis
from nanhunt.render.html import html, html_page, story_html, story_page
from nanhunt.render.preflight import tell_preflight
from nanhunt.render.text import story_text, text

__all__ = [
    "html",
    "html_page",
    "mime_bundle",
    "story_html",
    "story_page",
    "story_text",
    "tell_comparison",
    "tell_diagnosis",
    "tell_preflight",
    "text",
]


def mime_bundle(report: Report) -> dict[str, Any]:
    """The report in every form that a front end may choose from."""
    return {
        "text/plain": text(report),
        "text/html": html(report),
        MIME_TYPE: report.to_dict(),
    }
