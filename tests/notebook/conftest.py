"""The browser that the tests drive."""

from __future__ import annotations

from collections.abc import Iterator

import find_chromium
import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a browser of our own."""
    path = find_chromium.find()
    assert path, "the browser tests need Chromium: sudo apt-get install -y chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser.new_page(viewport={"width": 1280, "height": 1500})
        browser.close()
