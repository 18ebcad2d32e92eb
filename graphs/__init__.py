"""Attribution graphs: nodes, influence, pruning, scores and files.  No torch."""

from graphs.descriptions import Description, Example
from graphs.files import GraphFileError
from graphs.graph import AttributionGraph
from graphs.influence import influence, resolved_influence
from graphs.interchange import to_networkx, write_graphml, write_node_link
from graphs.neuronpedia import to_neuronpedia, write_neuronpedia
from graphs.neuronpedia_reader import read_neuronpedia
from graphs.nodes import INPUT_KINDS, TARGET_KINDS, NodeId, NodeKind, NodeTable
from graphs.provenance import (
    SCHEMA_VERSION,
    Checks,
    DictionaryIdentity,
    ModelIdentity,
    Provenance,
    Target,
)
from graphs.prune import PruneSettings, cumulative_influence, prune
from graphs.scores import Scores, scores
from graphs.storage import read_graph, write_graph
from graphs.summary import NodeLine, Summary, TargetLine, summarise

__all__ = [
    "INPUT_KINDS",
    "SCHEMA_VERSION",
    "TARGET_KINDS",
    "AttributionGraph",
    "Checks",
    "Description",
    "DictionaryIdentity",
    "Example",
    "GraphFileError",
    "ModelIdentity",
    "NodeId",
    "NodeKind",
    "NodeLine",
    "NodeTable",
    "Provenance",
    "PruneSettings",
    "Scores",
    "Summary",
    "Target",
    "TargetLine",
    "cumulative_influence",
    "influence",
    "prune",
    "read_graph",
    "read_neuronpedia",
    "resolved_influence",
    "scores",
    "summarise",
    "to_networkx",
    "to_neuronpedia",
    "write_graph",
    "write_graphml",
    "write_neuronpedia",
    "write_node_link",
]
