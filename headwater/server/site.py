"""Site: the pages and JSON responses of `headwater serve`.

    GET    /                            front page: enter a prompt, watch progress, choose a graph
    GET    /graphs                      names of the graphs in the folder
    GET    /graphs/NAME                 the page of a graph
    PUT    /graphs/NAME/annotations     save its annotations in the file beside it
    POST   /graphs/NAME/interventions   {"edits": …}: queue an intervention
    POST   /traces                      {"prompt": …}: queue a trace
    GET    /jobs/NUMBER                 progress and result of a job
    DELETE /jobs/NUMBER                 cancel it

Access is checked before, by `headwater.server.guard`.  A name can only be that of a file in the
folder; bodies are bounded.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

import graphs
from graphs.core.merging import merged
from graphs.disk.files import first_problem
from graphs.formats.updates import update_annotations
from headwater.opened import open_graph
from headwater.server.deadline import Deadline
from headwater.server.guard import Guard, refuse
from headwater.server.jobs import Job, Jobs, QueueFull, Work
from headwater.server.naming import SUFFIX, MissingGraph, is_inside, path_of
from headwater.server.requests import (
    AnnotationsRequest,
    InterventionRequest,
    TraceRequest,
    Workspace,
)
from viz.page.front import front_page
from viz.page.page import served_page

LARGEST_BODY = 2**21
VERSION = version("headwater")
_NUMBER = re.compile(r"[0-9]{1,18}")


class Refused(Exception):
    """A request that is refused, with a status and one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def site(
    folder: Path, jobs: Jobs, workspace: Workspace, port: int, model: str, token: str
) -> ASGIApp:
    """The application over a folder of graphs, behind its token."""
    pages = _Pages(folder, jobs, workspace, model)
    answers = Starlette(
        routes=[
            Route("/", pages.front),
            Route("/graphs", pages.list_graphs),
            Route("/graphs/{name}", pages.graph),
            Route("/graphs/{name}/annotations", pages.annotate, methods=["PUT"]),
            Route("/graphs/{name}/interventions", pages.intervene, methods=["POST"]),
            Route("/traces", pages.trace, methods=["POST"]),
            Route("/jobs/{number}", pages.progress, methods=["GET", "DELETE"]),
        ],
        exception_handlers={Refused: _refused, ClientDisconnect: _gone},
    )
    return Guard(answers, port, token)


def server(answers: ASGIApp) -> uvicorn.Server:
    """A uvicorn server for the application, with a deadline on every request."""
    return uvicorn.Server(
        uvicorn.Config(answers, http=Deadline, ws="none", proxy_headers=False, log_level="error")
    )


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refuse(request, error.status, str(error))


def _gone(request: Request, error: Exception) -> Response:
    """The client left during an upload; nobody reads this response."""
    del request, error
    return Response(status_code=HTTPStatus.BAD_REQUEST)


class _Pages:
    """The request handlers."""

    def __init__(self, folder: Path, jobs: Jobs, workspace: Workspace, model: str) -> None:
        self.folder, self.jobs, self.workspace, self.model = folder, jobs, workspace, model

    async def front(self, request: Request) -> Response:
        del request
        return HTMLResponse(
            front_page(self.model, f"headwater {VERSION}", self.workspace.examples())
        )

    async def list_graphs(self, request: Request) -> Response:
        del request
        return JSONResponse(self._names())

    def graph(self, request: Request) -> Response:
        """Not a coroutine, so that starlette runs it in a thread: a large graph takes a second."""
        path = self._path(request)
        try:
            read, annotations, _ = open_graph(path)
        except graphs.GraphFileError as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return HTMLResponse(served_page(read, annotations, path))

    async def annotate(self, request: Request) -> Response:
        """Merge annotations into the file; returns the result if others changed it meanwhile."""
        annotations_file = graphs.annotations_path(self._path(request))
        if annotations_file.resolve().parent != self.folder.resolve():
            raise Refused(
                HTTPStatus.FORBIDDEN, f"{annotations_file.name} is a link out of this folder."
            )
        received = await _body(request, AnnotationsRequest)
        try:
            kept = await run_in_threadpool(
                update_annotations,
                annotations_file,
                lambda there: merged(received.read, there, received.own),
            )
        except graphs.MergeConflict as error:
            sentence = f"{str(error).rstrip('.')}: reload the page, which shows both."
            raise Refused(HTTPStatus.CONFLICT, sentence) from error
        except graphs.GraphFileError as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        if kept == received.own:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return JSONResponse(kept.model_dump(mode="json"))

    async def trace(self, request: Request) -> Response:
        received = await _body(request, TraceRequest)
        return self._queued(received.prompt, lambda report: self.workspace.trace(received, report))

    async def intervene(self, request: Request) -> Response:
        path = self._path(request)
        received = await _body(request, InterventionRequest)
        return self._queued(
            received.what, lambda report: self.workspace.intervene(path, received, report)
        )

    def _queued(self, what: str, work: Work) -> Response:
        try:
            job = self.jobs.add(what, work)
        except QueueFull as error:
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, str(error)) from error
        return JSONResponse(job.as_json(), HTTPStatus.ACCEPTED)

    async def progress(self, request: Request) -> Response:
        job = self._job(request)
        if request.method == "DELETE":
            self.jobs.cancel(job)
        return JSONResponse(job.as_json())

    def _job(self, request: Request) -> Job:
        number: str = request.path_params["number"]
        job = self.jobs.find(int(number)) if _NUMBER.fullmatch(number) else None
        if job is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"There is no job {number:.20}.")
        return job

    def _names(self) -> list[str]:
        """Graphs in the folder, the newest first."""
        found = [path for path in self.folder.glob(f"*{SUFFIX}") if is_inside(path, self.folder)]
        return [path.stem for path in sorted(found, key=lambda path: -path.stat().st_mtime)]

    def _path(self, request: Request) -> Path:
        try:
            return path_of(self.folder, request.path_params["name"])
        except MissingGraph as error:
            raise Refused(HTTPStatus.NOT_FOUND, str(error)) from error


Body = TypeVar("Body", bound=BaseModel)


async def _body(request: Request, kind: type[Body]) -> Body:
    """The body of a request.  Raises Refused if it is too large or of another kind."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0] != "application/json":  # which foreign forms cannot send
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Expected application/json, got {content_type!r}."
        )
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > LARGEST_BODY:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Expected at most {LARGEST_BODY:,} bytes."
            )
    try:
        return kind.model_validate_json(bytes(content))
    except ValidationError as error:
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"The request is not a valid {kind.__name__}: {first_problem(error)}.",
        ) from error
