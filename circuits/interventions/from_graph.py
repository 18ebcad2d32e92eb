"""Load what a graph was traced from: the model and dictionary that its header names."""

from __future__ import annotations

import torch

from circuits.atlas.shipped import ATLAS
from circuits.attribution.trace_settings import Expansion
from circuits.features.active import FeatureSource
from circuits.features.files.locations import LocationError
from circuits.features.files.source import SourceChoice, read_source
from circuits.interventions.experiment import Experiment, prepare
from circuits.interventions.origin import ExperimentError
from circuits.model.packaged import PACKAGED
from circuits.model.subject import DTYPES, Subject, read_subject
from graphs.core.graph import AttributionGraph
from graphs.core.provenance import NEURONS, UNKNOWN


def experiment_on(
    graph: AttributionGraph,
    model: str | None = None,
    transcoders: str | None = None,
    device: str = "cpu",
) -> Experiment:
    """An experiment with the model and dictionary that the graph's header names, or with these.

    Raises as `traced_with` and `prepare`.
    """
    return prepare(graph, *traced_with(graph, model, transcoders, device))


def traced_with(
    graph: AttributionGraph,
    model: str | None = None,
    transcoders: str | None = None,
    device: str = "cpu",
) -> tuple[Subject, FeatureSource]:
    """The model and dictionary that a graph's header names, or these.

    Raises ExperimentError if no model is named or given, and as `read_subject` and `read_source`.
    """
    header = graph.provenance
    name = model or header.model.name
    if name == UNKNOWN:
        raise ExperimentError("The graph does not name its model: give --model.")
    # Models that ship in packages have one revision, which a later version may replace.
    revision = None if model or name in ATLAS or name in PACKAGED else header.model.revision
    dtype = DTYPES.get(header.dtype, torch.float32)
    subject = read_subject(name, revision=revision, dtype=dtype, device=device)
    return subject, source_of(graph, subject, transcoders)


def source_of(
    graph: AttributionGraph, subject: Subject, transcoders: str | None = None
) -> FeatureSource:
    """The dictionary of a graph.  Raises ExperimentError if its name leads to none."""
    dictionary, most = graph.provenance.dictionary, most_neurons(graph)
    if transcoders is None and dictionary.kind == NEURONS:
        return read_source(subject, SourceChoice(neurons=True, max_neurons=most))
    if transcoders is None and subject.identity.name in ATLAS:
        return read_source(subject, SourceChoice(max_neurons=most))
    filled = dictionary.kind.endswith(f"and {NEURONS}")
    try:
        reference = transcoders or dictionary.name
        choice = SourceChoice(reference, max_neurons=most, filled=filled)
        return read_source(subject, choice)
    except LocationError as error:
        if transcoders is not None:
            raise
        raise ExperimentError(
            f"The graph's dictionary {dictionary.name!r} was not found: give its location with "
            "--transcoders."
        ) from error


def most_neurons(graph: AttributionGraph) -> int:
    """How many neurons a graph was traced with, at most, if its features are neurons."""
    stated = graph.provenance.settings.get("max_features")
    return stated if isinstance(stated, int) else Expansion().max_features
