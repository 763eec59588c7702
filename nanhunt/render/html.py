"""A story as HTML: without scripts, legible without its stylesheet, in the theme's colours."""

from __future__ import annotations

from html import escape

from nanhunt.render.story import Story, Table

# JupyterLab's variables first, then VS Code's, then the page's own.
_STYLE = """
.nanhunt{--ink:var(--jp-ui-font-color1,var(--vscode-foreground,#1f2328));
--soft:var(--jp-ui-font-color2,var(--vscode-descriptionForeground,#59636e));
--line:var(--jp-border-color2,var(--vscode-panel-border,#d1d9e0));
--code:var(--jp-layout-color2,var(--vscode-textCodeBlock-background,#f3f4f6));
--bad:var(--jp-error-color1,var(--vscode-errorForeground,#c62828));
--warn:var(--jp-warn-color1,var(--vscode-editorWarning-foreground,#b26a00));
--good:var(--jp-success-color1,var(--vscode-testing-iconPassed,#2e7d32));
color:var(--ink);font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);max-width:72em}
.nanhunt .verdict{font-size:15px;font-weight:600;margin:.4em 0;padding:.3em .6em;
border-left:4px solid var(--bad)}
.nanhunt.healthy .verdict{border-color:var(--good)}
.nanhunt.warning .verdict{border-color:var(--warn)}
.nanhunt.unexplained .verdict{border-left-style:dashed}
.nanhunt.internal_error .verdict{border-color:var(--warn);border-left-style:dashed}
.nanhunt.interrupted .verdict{border-color:var(--soft)}
.nanhunt.nothing_watched .verdict{border-color:var(--soft);border-left-style:dashed}
.nanhunt pre.line{background:var(--code);color:var(--ink);padding:.5em .8em;margin:.4em 0;
overflow-x:auto;font:12px/1.5 var(--jp-code-font-family,ui-monospace,monospace)}
.nanhunt pre.line code{background:none;padding:0}
.nanhunt dl{display:grid;grid-template-columns:max-content 1fr;gap:.15em 1em;margin:.5em 0}
.nanhunt dl>dt{color:var(--soft);font-weight:400}
.nanhunt dd{margin:0;overflow-wrap:anywhere}
.nanhunt table{border-collapse:collapse;margin:.3em 0 .6em;font-size:12px}
.nanhunt.nanhunt th,.nanhunt.nanhunt td{text-align:left;padding:.15em .9em .15em 0;
border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
.nanhunt.nanhunt td:nth-child(2){white-space:nowrap}
.nanhunt.nanhunt th{color:var(--soft);font-weight:500}
.nanhunt summary{cursor:pointer;padding:.15em 0}
.nanhunt summary:focus-visible{outline:2px solid var(--jp-brand-color1,#0969da)}
.nanhunt ul{margin:.3em 0;padding-left:1.3em}
.nanhunt .notes{color:var(--soft);font-size:12px}
"""
# All others stand for something bad.
_COLOURED = (
    "healthy",
    "warning",
    "unexplained",
    "internal_error",
    "interrupted",
    "nothing_watched",
)
_PAGE_STYLE = """
:root{color-scheme:light dark}
body{margin:2em auto;padding:0 1.2em;max-width:76em;background:#fff}
@media (prefers-color-scheme:dark){body{background:#111418}
.nanhunt{--ink:#e6e8eb;--soft:#9aa4af;--line:#343b43;--code:#1c2128;--bad:#ff8a80;--warn:#f0b45f;--good:#81c995}}
"""


def page(story: Story) -> str:
    """A story as a page of its own, light and dark, that needs no network."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>nanhunt: {escape(story.verdict)}</title>\n</head>\n<body>\n<main>\n"
        f"{fragment(story)}\n</main>\n<style>{_PAGE_STYLE}</style>\n</body>\n</html>\n"
    )


def fragment(story: Story) -> str:
    """A story as a fragment for a notebook's output."""
    kind = f" {story.status}" if story.status in _COLOURED else ""
    parts = [
        f"<style>{_STYLE}</style>",
        f'<section class="nanhunt{kind}" aria-label="nanhunt report">',
        f'<p class="verdict"><span aria-hidden="true">{story.glyph}</span> '
        f"<strong>{escape(story.verdict)}</strong></p>",
    ]
    if story.code:
        parts.append(f'<pre class="line"><code>{escape(story.code)}</code></pre>')
    if story.facts:
        entries = "".join(
            f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in story.facts
        )
        parts.append(f"<dl>{entries}</dl>")
    if story.change is not None:
        parts.append(f"<p>{escape(story.change.caption)}</p>")
        parts.append(f'<pre class="line"><code>{escape(story.change.code)}</code></pre>')
    parts += [_table(table, number == 0) for number, table in enumerate(story.tables)]
    if story.others:
        parts.append(f"<p>Other findings</p>{_list(story.others)}")
    if story.notes:
        parts.append(f'<div class="notes">{_list(story.notes)}</div>')
    parts.append("</section>")
    return "\n".join(parts)


def _table(table: Table, unfolded: bool) -> str:
    head = "".join(f'<th scope="col">{escape(header)}</th>' for header in table.headers)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    caption = escape(table.caption)
    return (
        f"<details{' open' if unfolded else ''}><summary>{caption}</summary>"
        f'<table aria-label="{caption}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></details>"
    )


def _list(lines: tuple[str, ...]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
