"""Labels of components of scores, whether the graph has them as nodes or not."""

from __future__ import annotations

import numpy as np

from circuits.features.labels import output_tokens
from circuits.interventions.experiment import Experiment
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.nodes import Description, NodeKind
from graphs.naming.names import Names, description_label


def component_labels(
    experiment: Experiment, rows: list[int], annotations: Annotations = NO_ANNOTATIONS
) -> dict[int, str]:
    """Of the features among these: what the graph calls them, else by description alone."""
    names, nodes = Names(experiment.graph, annotations), experiment.sources.nodes
    found: dict[int, str] = {}
    for column, description in _descriptions(experiment, rows).items():
        try:
            label = names.label(experiment.graph.find(nodes[column]))
        except KeyError:
            label = ""
        found[column] = label or description_label(description)
    return found


def _descriptions(experiment: Experiment, rows: list[int]) -> dict[int, Description]:
    """The dictionary's descriptions of the features among these, or what they promote."""
    sources, features = experiment.sources, experiment.local.features
    chosen = np.array(rows, dtype=np.int64)
    chosen = chosen[sources.nodes.is_kind(NodeKind.FEATURE)[chosen]]
    own = np.searchsorted(sources.feature_column, chosen)
    found: dict[int, Description] = {}
    for column, row in zip(chosen.tolist(), own.tolist(), strict=True):
        layer, index = int(features.on_host.layer[row]), int(features.on_host.index[row])
        description = experiment.source.describe(layer, index)
        if description is not None and description.label:
            found[column] = description
    unknown = ~np.isin(chosen, list(found))
    subject = experiment.subject
    promoted = output_tokens(subject.frozen, features, own[unknown], subject.spell)
    for column, tokens in zip(chosen[unknown].tolist(), promoted, strict=True):
        found[column] = Description(label="", promoted_at_own_layer=tokens)
    return found
