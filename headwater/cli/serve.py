"""The command that runs the local server: serve."""

from __future__ import annotations

import secrets
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

import circuits
from circuits.atlas.shipped import DEFAULT_MODEL
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.model.data_type import DType
from circuits.model.prompt_rule import DEFAULT_RULE
from circuits.progress import progress_bar
from headwater.arguments.options import (
    BosRule,
    Device,
    MaxFeatures,
    Model,
    PrefixLength,
    Revision,
    Transcoders,
    Type,
)
from headwater.arguments.usage import UsageError
from headwater.cli.app import app
from headwater.cli.trace import EXPANSION
from headwater.openings import rule_beside
from headwater.server.jobs import Jobs
from headwater.server.requests import Workspace
from headwater.terminal.printing import errors, print_line

HOST = "127.0.0.1"
_NEEDED = ("starlette", "uvicorn")


@app.command("serve")
def serve_command(
    folder: Annotated[
        Path, typer.Argument(help="Folder from which graphs are read and to which they go.")
    ] = Path(),
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    transcoders: Transcoders = None,
    max_features: MaxFeatures = EXPANSION.max_features,
    bos: BosRule = DEFAULT_RULE.bos,
    n_prefix: PrefixLength = DEFAULT_RULE.n_prefix,
    dtype: Type = DType.FLOAT32,
    device: Device = "auto",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8765,
) -> None:
    """Trace prompts and edit features in the browser: a server for this machine alone."""
    from headwater.server.workspace import ModelWorkspace  # imports torch

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} missing: pip install 'headwater[serve]'.")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: create it, or give another.")
    settings = TraceSettings(expansion=Expansion(max_features=max_features))
    with _listen(port) as listener:  # before the model is read, which may take long
        with progress_bar(errors) as progress:
            progress("load", 0, 1)
            subject = circuits.read_subject(model, revision=revision, dtype=dtype, device=device)
            source = circuits.read_source(
                subject, circuits.SourceChoice(transcoders, max_neurons=max_features)
            )
            circuits.opening_ids(
                subject.tokenizer, bos
            )  # raises if there is no BOS to put in front
        rule = rule_beside(source, bos, n_prefix)
        _run(folder, ModelWorkspace(folder, subject, source, settings, rule), listener, model)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(f"Port {port} is in use: give another --port, or 0 for any.") from error
    return listener


def _run(folder: Path, workspace: Workspace, listener: socket.socket, model: str) -> None:
    from headwater.server.site import server, site  # needs the extra `serve`

    port, token = listener.getsockname()[1], secrets.token_urlsafe(32)
    jobs = Jobs()
    print_line(f"http://{HOST}:{port}/?token={token}  (Ctrl-C stops it)")
    try:
        server(site(folder, jobs, workspace, port, model, token)).run(sockets=[listener])
    finally:
        jobs.close()
        listener.close()
