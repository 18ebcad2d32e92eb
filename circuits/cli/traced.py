"""What a graph was traced from: its model and dictionary, by what its header says."""

from __future__ import annotations

from typing import Annotated

import torch
import typer

import graphs
from circuits.atlas.shipped import ATLAS
from circuits.cli.options import Features
from circuits.cli.trace import Points, read_source
from circuits.cli.usage import UsageError
from circuits.expand import Expansion
from circuits.experiment import Experiment, prepare
from circuits.features import FeatureSource
from circuits.packaged import PACKAGED
from circuits.places import PlaceError
from circuits.subject import Subject, read_subject

TracedModel = Annotated[str | None, typer.Option("--model", help="If not by the graph's name.")]
TracedTranscoders = Annotated[
    str | None, typer.Option("--transcoders", help="If not found by the graph's name.")
]
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def experiment_on(
    graph: graphs.AttributionGraph,
    model: str | None,
    transcoders: str | None,
    device: str = "cpu",
) -> Experiment:
    """A graph with the model and dictionary that its header or the options name.

    Raises UsageError if neither does, and as `read_subject`, `read_source` and `prepare`.
    """
    header = graph.provenance
    name = model or header.model.name
    if name == graphs.UNKNOWN:
        raise UsageError("The graph does not say which model was traced: give --model.")
    # Models that ship in packages have one revision, which a later version may replace.
    asked = None if model or name in ATLAS or name in PACKAGED else header.model.revision
    dtype = DTYPES.get(header.dtype, torch.float32)
    subject = read_subject(name, revision=asked, dtype=dtype, device=device)
    return prepare(graph, subject, source_of(graph, subject, transcoders))


def source_of(
    graph: graphs.AttributionGraph, subject: Subject, transcoders: str | None
) -> FeatureSource:
    """The dictionary of a graph.  Raises UsageError if it cannot be found by its name."""
    dictionary, settings = graph.provenance.dictionary, graph.provenance.settings
    told = settings.get("max_features")
    most = told if isinstance(told, int) else Expansion().max_features
    if transcoders is None and dictionary.kind == graphs.NEURONS:
        return read_source(subject, None, Features.NEURONS, most, Points())
    filled = Points(filled=dictionary.kind.endswith(f"and {graphs.NEURONS}"))
    if transcoders is None and subject.identity.name in ATLAS:
        return read_source(subject, None, None, most, Points())
    try:
        return read_source(subject, transcoders or dictionary.name, None, most, filled)
    except PlaceError as error:
        if transcoders is not None:
            raise
        raise UsageError(
            f"The dictionary of the graph, {dictionary.name!r}, is not found by that name: give "
            "--transcoders."
        ) from error
