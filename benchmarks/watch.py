"""The largest anonymous memory of this process: memory that no file backs, so no page cache.

Standard library only, so that another tool's environment can import it.
"""

from __future__ import annotations

import threading
from pathlib import Path


class Watch:
    """The largest anonymous memory of this process while it is open, in bytes."""

    def __enter__(self) -> Watch:
        self.peak, self.done = anonymous(), threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, anonymous())


def anonymous() -> int:
    """Bytes of this process that no file backs (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("This benchmark needs Linux.")
