"""Progress reported to a callback: a bar in a terminal, nothing elsewhere."""

from __future__ import annotations

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
def progress_bar(console: Console) -> Iterator[Progress]:
    """A callback that draws one bar on a console, and nothing if that is not a terminal."""
    columns = (TextColumn("{task.description:9}", markup=False), BarColumn(), TimeElapsedColumn())
    with Bar(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,  # output of libraries is left alone
        redirect_stderr=False,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=1)

        def report(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=max(total, 1))

        yield report
