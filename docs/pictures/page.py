"""Draws the picture of the page anew, in Debian's chromium: `python docs/pictures/page.py`."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import ViewportSize, sync_playwright

import headwater as hw

PICTURE = Path(__file__).with_suffix(".png")
PROMPT = "The capital of the state containing Dallas is"

if __name__ == "__main__":
    graph = hw.trace(PROMPT)
    with TemporaryDirectory() as folder, sync_playwright() as driver:
        written = graph.save(Path(folder) / "dallas.html")
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=ViewportSize(width=1280, height=720))
        page.goto(written.as_uri())
        page.wait_for_selector("html[data-ready]")
        page.locator('.overview [aria-label^="Texas,"]').click()
        page.wait_for_timeout(500)
        page.screenshot(path=PICTURE)
        browser.close()
