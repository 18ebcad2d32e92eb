"""Jobs: traces and interventions, run one at a time in a thread of their own.

A model that is traced or edited has hooks in it, so nothing else may run on it meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from circuits.progress import Progress
from graphs.errors import HeadwaterError

Work = Callable[[Progress], object]  # returns its result, as JSON
MOST_QUEUED = 20
MOST_STORED = 200


class Cancelled(Exception):
    """The job was cancelled."""


class QueueFull(HeadwaterError):
    """Too many jobs are queued."""


@dataclass
class Job:
    """One trace or intervention, and its progress."""

    number: int
    what: str  # in words
    work: Work = field(repr=False)
    state: Literal["waiting", "running", "done", "failed", "cancelled"] = "waiting"
    stage: str = ""
    part: float = 0.0  # of the stage, 0 to 1
    made: object = None  # name of a graph, or effects
    error: str | None = None  # one sentence
    unwanted: threading.Event = field(default_factory=threading.Event, repr=False)

    def as_json(self) -> dict[str, object]:
        return {key: value for key, value in vars(self).items() if key not in ("unwanted", "work")}


class Jobs:
    """A queue.  If a job raises, its error is stored and the queue continues."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job")
        self._jobs: dict[int, Job] = {}
        self._number = 0

    def add(self, what: str, work: Work) -> Job:
        """Put work at the end of the queue.  Raises QueueFull."""
        queued = sum(job.state == "waiting" for job in self._jobs.values())
        if queued >= MOST_QUEUED:
            raise QueueFull(f"{queued} jobs are queued already: cancel one, or wait.")
        self._number += 1
        job = self._jobs[self._number] = Job(self._number, what, work)
        for old in list(self._jobs)[:-MOST_STORED]:
            if self._jobs[old].state not in ("waiting", "running"):
                del self._jobs[old]
        self._thread.submit(self._run, job)
        return job

    def find(self, number: int) -> Job | None:
        return self._jobs.get(number)

    def cancel(self, job: Job) -> None:
        """Drop a queued job; stop a running one at its next progress report."""
        job.unwanted.set()
        if job.state == "waiting":
            job.state = "cancelled"

    def close(self) -> None:
        """Stop the running job and drop the others."""
        for job in self._jobs.values():
            job.unwanted.set()
        self._thread.shutdown(cancel_futures=True)

    def _run(self, job: Job) -> None:
        if job.unwanted.is_set():
            return
        job.state = "running"

        def report(stage: str, done: int, total: int) -> None:
            if job.unwanted.is_set():
                raise Cancelled
            job.stage, job.part = stage, done / max(total, 1)

        try:
            job.made = job.work(report)
            job.state = "done"
        except Cancelled:
            job.state = "cancelled"
        except HeadwaterError as error:
            job.state, job.error = "failed", str(error)
        except Exception as error:  # a fault in a job must not end the server
            job.state, job.error = "failed", f"{type(error).__name__}: {error}"
