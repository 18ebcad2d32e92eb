"""Progress reported to a callback: a bar in a terminal, lines or nothing elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

Progress = Callable[[str, int, int], None]  # stage, done, total


def ignore_progress(stage: str, done: int, total: int) -> None:
    """The callback that does nothing."""
    del stage, done, total


@contextmanager
def progress_bar(console: Console, *, every: float = math.inf) -> Iterator[Progress]:
    """A callback that draws one bar on a console.

    Where that is no terminal, the latest stage is a line of its own after `every` seconds, by
    default never.
    """
    if not console.is_terminal:
        yield _lines(console, every)
        return
    columns = (TextColumn("{task.description:9}", markup=False), BarColumn(), TimeElapsedColumn())
    with Bar(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,  # output of libraries is left alone
        redirect_stderr=False,
    ) as bar:
        task = bar.add_task("", total=1)

        def report(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=max(total, 1))

        yield report


def _lines(console: Console, every: float) -> Progress:
    start = last = time.monotonic()

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every:
            last = now
            console.print(f"{duration(now - start)}: {stage}, {done:,} of {total:,}")

    return report


def duration(seconds: float) -> str:
    """A time as text, in two units at most: 45 s, 12 min, 3 h 20 min, 2 d 5 h."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    hours, days = minutes // 60, minutes // 1440
    if hours == 0:
        return f"{minutes} min"
    if days == 0:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"
