"""A `headwater serve` that a test asks: its own model, or a toy in its place."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import graphs
from circuits.model.prompt import PromptError
from circuits.progress import Progress
from headwater.cli.serve import HOST, _listen
from headwater.server.jobs import Jobs
from headwater.server.naming import free_path
from headwater.server.requests import InterventionRequest, TraceRequest, Workspace
from headwater.server.site import server, site
from tests.test_viewer_numbers import layered

TOKEN = "a-token"


@dataclass
class Served:
    folder: Path
    port: int
    go_on: threading.Event  # traces of "slow …" wait for it

    @property
    def address(self) -> str:
        """What a person opens."""
        return f"http://{HOST}:{self.port}/?token={TOKEN}"

    def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Status, content and headers of an answer; underscores in names of headers are dashes."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"authorization": f"token {TOKEN}"} | sent
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if body is not None:
            sent = {"content-type": "application/json"} | sent
        connection.request(method, path, body=content, headers=sent)
        answer = connection.getresponse()
        found = answer.status, answer.read(), answer.headers
        connection.close()
        return found

    def json(self, method: str, path: str, body: object = None, **headers: str):
        status, content, _ = self.ask(method, path, body, **headers)
        return status, json.loads(content)

    def until(self, number: int, *states: str) -> dict:
        job: dict = {}
        for _ in range(400):
            _, job = self.json("GET", f"/jobs/{number}")
            if job["state"] in states:
                return job
            time.sleep(0.02)
        raise AssertionError(f"never {states}: {job}")


@dataclass
class ToyWorkspace:
    folder: Path
    go_on: threading.Event

    def examples(self) -> tuple[str, ...]:
        return ("the <cat>",)

    def trace(self, request: TraceRequest, report: Progress) -> str:
        prompt = request.prompt
        for step in range(10_000 if prompt.startswith("slow") else 1):
            report("sweep", step, 10_000)
            if self.go_on.wait(0.005 if prompt.startswith("slow") else 0):
                break
        if prompt.startswith("bad"):
            raise PromptError("This prompt is bad: give another.")
        if prompt.startswith("worse"):
            raise ZeroDivisionError("by zero")
        path = free_path(self.folder, prompt)
        graphs.write_graph(layered(0), path)
        return path.stem

    def intervene(self, path: Path, asked: InterventionRequest, report: Progress) -> object:
        raise NotImplementedError


@contextmanager
def serving(folder: Path, workspace: Workspace | None = None) -> Iterator[Served]:
    go_on = threading.Event()

    listener = _listen(0)
    port = listener.getsockname()[1]
    jobs = Jobs()
    workspace = workspace or ToyWorkspace(folder, go_on)
    running = server(site(folder, jobs, workspace, port, "toy <b>", TOKEN))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield Served(folder, port, go_on)
    go_on.set()
    jobs.close()
    running.should_exit = True
    thread.join()
    listener.close()


@contextmanager
def serving_one(folder: Path) -> Iterator[Served]:
    """A folder with a graph named one."""
    folder.mkdir()
    graphs.write_graph(layered(1), folder / "one.safetensors")
    with serving(folder) as found:
        yield found
