"""Cuts the README's pictures of JupyterLab out of the screenshots of the browser tests."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK_AND_SIDEBAR = (291, 30, 1246, 1700)
PANEL = (375, 88, 1640, 572)


def main() -> None:
    """Writes report and panel, light and dark, into examples/images."""
    for theme in ("light", "dark"):
        for shot, name, box in (
            (f"live-{theme}", f"report-{theme}", NOTEBOOK_AND_SIDEBAR),
            (f"panel-{theme}", f"panel-{theme}", PANEL),
        ):
            page = Image.open(ROOT / "build" / "screenshots" / f"{shot}.png").convert("RGB")
            cut = page.crop(box).quantize(96, dither=Image.Dither.NONE)
            cut.save(ROOT / "examples" / "images" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
