"""The README shows what a user would see."""

from __future__ import annotations

from readme_example import OUTPUT, README, run


def test_the_program_in_the_readme_gives_the_verdict_in_the_readme() -> None:
    page = README.read_text(encoding="utf-8")
    shown = OUTPUT.search(page)
    assert shown is not None
    verdict_and_line = shown[1].splitlines()[:2]
    assert run(page).splitlines()[:2] == verdict_and_line
