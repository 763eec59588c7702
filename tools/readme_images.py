"""Cuts the README's pictures of JupyterLab out of the screenshots of the browser tests."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK_AND_SIDEBAR = (291, 30, 1246, 1700)


def main() -> None:
    """Writes examples/images/report-light.png and report-dark.png."""
    for theme in ("light", "dark"):
        shot = Image.open(ROOT / "build" / "screenshots" / f"live-{theme}.png").convert("RGB")
        cut = shot.crop(NOTEBOOK_AND_SIDEBAR).quantize(96, dither=Image.Dither.NONE)
        cut.save(ROOT / "examples" / "images" / f"report-{theme}.png", optimize=True)


if __name__ == "__main__":
    main()
