"""The command that runs the local server: serve."""

from __future__ import annotations

import secrets
import socket
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

import circuits
import graphs
from circuits.atlas.shipped import DEFAULT_MODEL
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.model.data_type import DType
from circuits.model.prompt_rule import DEFAULT_RULE, PromptRule
from circuits.progress import Progress, progress_bar
from graphs.disk.locks import locked
from graphs.formats.updates import keep_measured
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
from headwater.server.jobs import Jobs
from headwater.server.naming import free_path
from headwater.server.requests import InterventionRequest, Workspace
from headwater.terminal.printing import errors, print_line

HOST = "127.0.0.1"
IN_PAGE = 6  # tokens and features that a page shows for an intervention
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
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} missing: pip install 'headwater[serve]'.")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: create it, or give another.")
    settings = TraceSettings(expansion=Expansion(max_features=max_features))
    rule = PromptRule(bos, n_prefix)
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
        _run(folder, ModelWorkspace(folder, subject, source, settings, rule), listener, model)


@dataclass(frozen=True)
class ModelWorkspace:
    """One model and dictionary, and a folder for graphs."""

    folder: Path
    subject: circuits.Subject
    source: circuits.FeatureSource
    settings: TraceSettings
    rule: PromptRule = DEFAULT_RULE

    def trace(self, prompt: str, report: Progress) -> str:
        """Write the graph of a prompt; returns the name of its file."""
        text = circuits.read_prompt(prompt, self.subject.tokenizer, self.rule)
        graph = circuits.trace(text, self.subject, self.source, self.settings, report)
        with locked(self.folder / "graph"):  # another server may find the same name free
            about = graph.provenance
            path = free_path(self.folder, prompt, about.model.name, about.dictionary.name)
            graphs.write_graph(graph, path)
        return path.stem

    def intervene(self, path: Path, request: InterventionRequest, report: Progress) -> object:
        """The effects of an intervention; measurements are stored in the graph's file.

        Raises ExperimentError for a graph of another model or dictionary.
        """
        graph = graphs.read_graph(path)
        edits = [edit.edit() for edit in request.edits]
        intervention = graphs.intervention(graph, edits, request.annotations)
        report("prepare", 0, 1)
        experiment = circuits.prepare(graph, self.subject, self.source)
        outcomes = circuits.intervene(experiment, [intervention], request.regime, progress=report)
        measured = tuple(circuits.at_targets(experiment, outcomes))
        keep_measured(path, graph, measured)
        found = asdict(circuits.effects(experiment, outcomes, 0, IN_PAGE))
        return {**found, "stored": [one.model_dump(mode="json") for one in measured]}


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
