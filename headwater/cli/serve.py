"""The command that answers in the browser: serve."""

from __future__ import annotations

import re
import secrets
import socket
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import torch
import typer

import graphs
from circuits.attribution.expand import Expansion
from circuits.features.active import FeatureSource
from circuits.features.files.source import read_source
from circuits.interventions.effects import effects
from circuits.interventions.experiment import prepare
from circuits.interventions.intervene import at_targets, intervene
from circuits.model.prompt import DEFAULT_RULE, PromptRule, opening_ids, read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import TraceSettings, trace
from circuits.progress import Progress, progress_bar
from graphs.disk.locks import locked
from headwater.cli.app import app
from headwater.cli.options import (
    BosRule,
    ContextOnly,
    Device,
    DType,
    MaxFeatures,
    Model,
    Revision,
    Transcoders,
    Type,
)
from headwater.cli.trace import DEFAULT_MODEL, EXPANSION
from headwater.cli.usage import UsageError
from headwater.server.asked import AskedIntervention, Workshop
from headwater.server.jobs import Jobs
from headwater.terminal.printing import errors, say

HOST = "127.0.0.1"
IN_PAGE = 6  # tokens and features that a page tells of an intervention
_NEEDED = ("starlette", "uvicorn")


@app.command("serve")
def serve_command(
    folder: Annotated[Path, typer.Argument(help="Where graphs are and where they go.")] = Path(),
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    transcoders: Transcoders = None,
    max_features: MaxFeatures = EXPANSION.max_features,
    bos: BosRule = DEFAULT_RULE.bos,
    context_only: ContextOnly = DEFAULT_RULE.context_only,
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
    settings = TraceSettings(expansion=Expansion(max_features=max_features))
    rule = PromptRule(bos, context_only)
    with _listen(port) as listener:  # before the model is read, which may take long
        with progress_bar(errors) as progress:
            progress("load", 0, 1)
            subject = read_subject(
                model, revision=revision, dtype=getattr(torch, dtype), device=device
            )
            source = read_source(subject, transcoders, max_neurons=max_features)
            opening_ids(subject.tokenizer, bos)  # refuses what no prompt could have
        _run(folder, ModelWorkshop(folder, subject, source, settings, rule), listener, model)


@dataclass(frozen=True)
class ModelWorkshop:
    """One model and dictionary; graphs go into a folder."""

    folder: Path
    subject: Subject
    source: FeatureSource
    settings: TraceSettings
    rule: PromptRule = DEFAULT_RULE

    def trace(self, prompt: str, report: Progress) -> str:
        """Write the graph of a prompt; the name of its file."""
        text = read_prompt(prompt, self.subject.tokenizer, self.rule)
        graph = trace(text, self.subject, self.source, self.settings, report)
        with locked(self.folder / "graph"):  # another server may find the same name free
            path = free_path(self.folder, prompt)
            graphs.write_graph(graph, path)
        return path.stem

    def intervene(self, path: Path, asked: AskedIntervention, report: Progress) -> object:
        """What an intervention on a graph does; the graph's file keeps what is measured.

        Raises ExperimentError for a graph of another model or dictionary.
        """
        graph = graphs.read_graph(path)
        edits = [edit.edit() for edit in asked.edits]
        made = graphs.intervention(graph, edits, asked.annotations)
        report("prepare", 0, 1)
        experiment = prepare(graph, self.subject, self.source)
        outcomes = intervene(experiment, [made], asked.regime, progress=report)
        measured = tuple(at_targets(experiment, outcomes))
        graphs.keep_measured(path, graph, measured)
        told = asdict(effects(experiment, outcomes, 0, IN_PAGE))
        return {**told, "stored": [one.model_dump(mode="json") for one in measured]}


def free_path(folder: Path, prompt: str) -> Path:
    """A file for a graph, named after the prompt, that is not there yet."""
    words = re.findall(r"\w+", prompt.lower())[-8:]
    name = graphs.portable("-".join(words)[:60].strip("-") or "graph")
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


def _run(folder: Path, workshop: Workshop, listener: socket.socket, model: str) -> None:
    from headwater.server.site import server, site  # of the extra `serve`, which not everybody has

    port, token = listener.getsockname()[1], secrets.token_urlsafe(32)
    jobs = Jobs()
    say(f"http://{HOST}:{port}/?token={token}  (Ctrl-C ends it)")
    try:
        server(site(folder, jobs, workshop, port, model, token)).run(sockets=[listener])
    finally:
        jobs.close()
        listener.close()
