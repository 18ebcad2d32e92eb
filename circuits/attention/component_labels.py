"""Labels of components, whether the graph has them as nodes or not."""

from __future__ import annotations

import numpy as np

from circuits.attention.components import Components
from circuits.features.labels import output_tokens
from circuits.interventions.experiment import Experiment
from graphs.core.nodes import NodeKind


def component_labels(
    components: Components, experiment: Experiment, rows: list[int]
) -> dict[int, str]:
    """The dictionary's labels of features among these components, or what they promote."""
    sources, features = components.sources, experiment.local.features
    chosen = np.array(rows, dtype=np.int64)
    chosen = chosen[sources.nodes.is_kind(NodeKind.FEATURE)[chosen]]
    own = np.searchsorted(sources.feature_column, chosen)
    found: dict[int, str] = {}
    unknown: list[int] = []
    for column, row in zip(chosen.tolist(), own.tolist(), strict=True):
        layer, index = int(features.on_host.layer[row]), int(features.on_host.index[row])
        description = experiment.source.describe(layer, index)
        if description is not None and description.label:
            found[column] = description.label
        else:
            unknown.append(row)
    subject = experiment.subject
    promoted = output_tokens(subject.frozen, features, np.array(unknown, np.int64), subject.spell)
    columns = sources.feature_column[np.array(unknown, dtype=np.int64)].tolist()
    for column, tokens in zip(columns, promoted, strict=True):
        found[column] = "promotes " + " ".join(f"“{token}”" for token in tokens)
    return found
