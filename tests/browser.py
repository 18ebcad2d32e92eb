"""Debian's chromium, headless, which opens our pages as a reader would: from a file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
LAPTOP = ViewportSize(width=1440, height=900)


@dataclass
class Opened:
    """A page in the browser, and what it should not have done."""

    page: Page
    complaints: list[str] = field(default_factory=list)  # errors and warnings of the console
    asked: list[str] = field(default_factory=list)  # addresses beyond the file itself


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, with the empty window that opens others.  It closes at the end."""
    with TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opener = Path(folder) / "opener.html"
        opener.touch()
        browser.new_context(viewport=LAPTOP).new_page().goto(opener.as_uri())
        yield browser
        browser.close()


def new_window(browser: Browser) -> Page:
    """A window of a laptop's size, of somebody who has never been here: nothing is stored.

    It is in the process of the windows before it, where plotly is compiled already: in a new one
    that takes four times as long as all that a test does.
    """
    opener = browser.contexts[0].pages[0]
    opener.context.clear_cookies()
    opener.evaluate("localStorage.clear()")
    with opener.expect_popup() as popup:
        opener.evaluate("void open('about:blank')")
    return popup.value


def visit(page: Page, path: Path, state: str = "") -> str:
    """Open a file in a `new_window`, and return its address: the one that all files have in turn.

    Only there is plotly compiled already.  A copy of the file is opened, which the next one
    replaces.
    """
    opener = Path(url2pathname(urlsplit(page.context.pages[0].url).path))
    copy = Path(shutil.copyfile(path, opener.with_name("page.html")))
    page.goto(copy.as_uri() + state)
    return copy.as_uri()


def leave(page: Page) -> None:
    """Close a window, once the page has stored what it stores on going.

    A window that is closed at once may do so after `new_window` has cleared the storage.
    """
    page.goto("about:blank")
    page.close()


@contextmanager
def opened(browser: Browser, path: Path, *, in_place: bool = False) -> Iterator[Opened]:
    """A file in a new window; its complaints are gathered from the start.

    It is opened as by `visit`, or in its own place, from where links lead to the files beside it.
    """
    page = new_window(browser)
    found = Opened(page)

    def listen(message: object) -> None:
        kind, text = getattr(message, "type", ""), getattr(message, "text", "")
        if kind in ("error", "warning"):
            found.complaints.append(text)

    page.on("console", listen)
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith(("data:", "blob:")) else found.asked.append(request.url)
        ),
    )
    if in_place:
        page.goto(path.as_uri())
        found.asked.remove(path.as_uri())
    else:
        found.asked.remove(visit(page, path))
    try:
        yield found
    finally:
        leave(page)


def show_full_graph(page: Page) -> None:
    """All nodes, as by the button beside that of the summary; nothing to store is left of it."""
    page.evaluate("viewer.state = { ...viewer.state, view: { ...viewer.view, summary: false } }")
    page.evaluate("renderAll(viewer)")


@contextmanager
def viewed(browser: Browser, path: Path, *, summary: bool = False) -> Iterator[Opened]:
    """A page of ours, ready to be used; it must ask for nothing and complain of nothing.

    It shows the full graph, or the summary on which it opens.
    """
    with opened(browser, path) as found:
        found.page.wait_for_selector("html[data-ready]")
        if not summary:
            show_full_graph(found.page)
        yield found
        assert found.complaints == []
        assert found.asked == []
