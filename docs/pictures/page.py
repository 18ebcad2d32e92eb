"""Draws the picture of the page anew, in Debian's chromium: `python docs/pictures/page.py`."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import ViewportSize, sync_playwright

import graphs
import headwater as hw
from graphs.groups.automatic import with_groups

PICTURE = Path(__file__).with_suffix(".png")
CLICKED = "feature:2/296@8"
PINNED = ("logit:57@8", "token:176@7", "token:882@2")
NAMES = {"Texas": "Texas", "South": "say Austin", "of": "capital"}  # by what groups promote


def annotated(graph: hw.Graph) -> hw.Graph:
    """The graph with its groups, of which three are named by hand as a reader would."""
    groups = [
        group.model_copy(update={"name": name})
        for group in with_groups(graph.prune(), graphs.NO_ANNOTATIONS).groups
        for promoted, name in NAMES.items()
        if group.name.partition(" → ")[2].startswith(promoted)
    ]
    return hw.Graph.of(graph, graphs.Annotations(groups=tuple(groups), pins=PINNED))


if __name__ == "__main__":
    graph = annotated(hw.trace("The capital of the state containing Dallas is"))
    with TemporaryDirectory() as folder, sync_playwright() as driver:
        written = graph.save(Path(folder) / "dallas.html")
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=ViewportSize(width=1440, height=900))
        page.goto(written.as_uri())
        page.wait_for_timeout(1500)
        page.evaluate(f"viewer.dispatch({{type: 'click', node: '{CLICKED}'}})")
        page.wait_for_timeout(1000)
        page.screenshot(path=PICTURE)
        browser.close()
