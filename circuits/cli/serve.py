"""The command that answers in the browser: serve."""

from __future__ import annotations

import re
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import torch
import typer

import graphs
from circuits.cli.app import INPUT_ERRORS, app, errors, output, plain_errors
from circuits.cli.jobs import Jobs, Work
from circuits.cli.options import Device, DType, MaxFeatures, Model, Revision, Transcoders, Type
from circuits.cli.trace import DEFAULT_MODEL, EXPANSION, Points, read_source
from circuits.cli.usage import UsageError
from circuits.expand import Expansion
from circuits.progress import Progress, progress_bar
from circuits.subject import read_subject
from circuits.tokens import read_prompt
from circuits.trace import TraceSettings, trace

HOST = "127.0.0.1"
_NEEDED = ("starlette", "uvicorn")


@app.command("serve")
@plain_errors
def serve_command(
    folder: Annotated[Path, typer.Argument(help="Where graphs are and where they go.")] = Path(),
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    transcoders: Transcoders = None,
    max_features: MaxFeatures = EXPANSION.max_features,
    dtype: Type = DType.FLOAT32,
    device: Device = "cpu",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
) -> None:
    """Trace prompts from the browser: a server for this machine alone."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} missing: pip install 'headwater[serve]'.")
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: make it first, or name another.")
    listener = _listen(port)
    with progress_bar(errors) as progress:
        progress("load", 0, 1)
        subject = read_subject(model, revision=revision, dtype=getattr(torch, dtype), device=device)
        source = read_source(subject, transcoders, None, max_features, Points())
    settings = TraceSettings(expansion=Expansion(max_features=max_features))

    def work(prompt: str, report: Progress) -> str:
        graph = trace(read_prompt(prompt, subject.tokenizer), subject, source, settings, report)
        path = free_path(folder, prompt)
        graphs.write_graph(graph, path)
        return path.stem

    _run(folder, work, listener, model)


def free_path(folder: Path, prompt: str) -> Path:
    """A file for a graph, named after the prompt, that is not there yet."""
    words = re.findall(r"\w+", prompt.lower())[-8:]
    name = "-".join(words)[:60].strip("-") or "graph"
    path, number = folder / f"{name}.safetensors", 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}.safetensors"
    return path


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(f"Port {port} is taken: give --port another, or 0 for any.") from error
    return listener


def _run(folder: Path, work: Work, listener: socket.socket, model: str) -> None:
    import uvicorn  # of the extra `serve`, which not everybody has

    from circuits.cli.site import site

    port = listener.getsockname()[1]
    jobs = Jobs(work, INPUT_ERRORS)
    output.print(f"http://{HOST}:{port}  (Ctrl-C ends it)", markup=False, soft_wrap=True)
    server = uvicorn.Server(uvicorn.Config(site(folder, jobs, port, model), log_level="warning"))
    try:
        server.run(sockets=[listener])
    finally:
        jobs.close()
        listener.close()
