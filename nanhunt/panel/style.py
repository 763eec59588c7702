"""The panel's style sheet: colours of the theme where there is one, readable without."""

from __future__ import annotations

from collections.abc import Sequence

_SHEET = """
.{m} .nh-line {{font-weight:600; padding:2px 8px; border-left:4px solid #888}}
.{m} .nh-busy {{border-color:#3b7dd8}}
.{m} .nh-alarm, .{m} tr.nh-alarm td {{border-color:#d62f2f}}
.{m} tr.nh-alarm td {{color:#d62f2f; font-weight:600}}
.{m} .nh-small {{opacity:.75; font-size:.9em}}
.{m} .nh-notice {{font-style:italic}}
.{m} .nh-log {{max-height:160px; overflow:auto; margin:4px 0; font-size:.9em; padding:4px;
  border:1px solid var(--jp-border-color2, #8888)}}
.{m} .widget-html-content table {{border-collapse:collapse; margin:4px 0}}
.{m} .widget-html-content td, .{m} .widget-html-content th {{padding:0 10px 0 0; text-align:left}}
.{m} .widget-html, .{m} .widget-html-content {{color:var(--jp-content-font-color1, inherit);
  line-height:1.5; height:auto; overflow:visible}}
.{m} .widget-button:focus-visible, .{m} select:focus-visible, .{m} input:focus-visible
  {{outline:2px solid #3b7dd8}}
.{m} .nanhunt-modules option {{white-space:pre; font-family:var(--jp-code-font-family, monospace);
  font-size:12px; border-left:4px solid transparent; padding-left:4px}}
"""


def list_style(mark: str, colours: Sequence[str]) -> str:
    """The sheet of one panel, with the colour of each row of its list.

    Args:
        mark: the panel's own class.
        colours: of the rows, from the first one on.
    """
    rows: dict[str, list[str]] = {}
    for number, colour in enumerate(colours, start=1):
        rows.setdefault(colour, []).append(f".{mark} .nanhunt-modules option:nth-child({number})")
    rules = "".join(f"{','.join(names)}{{border-color:{c}}}" for c, names in rows.items())
    return f"<style>{_SHEET.format(m=mark)}{rules}</style>"
