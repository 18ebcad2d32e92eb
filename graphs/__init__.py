"""Attribution graphs: nodes, influence, pruning, scores and files.  No torch."""

from graphs.annotations import (
    Annotations,
    Group,
    annotations_path,
    read_annotations,
    write_annotations,
)
from graphs.collapse import Collapsed, CyclicGroups, collapse
from graphs.compare import PERMUTATIONS, Comparison, Score, compare
from graphs.descriptions import Description, Example
from graphs.files import GraphFileError
from graphs.flow import Ends, entering, flow, necessity, whole
from graphs.graph import AttributionGraph
from graphs.grouping import GroupSettings, TooManyFeatures, find_groups, named, similarity
from graphs.influence import influence, resolved_influence
from graphs.interchange import to_networkx, write_graphml, write_node_link
from graphs.matching import Match, match_by_identity
from graphs.neuronpedia import to_neuronpedia, write_neuronpedia
from graphs.neuronpedia_reader import read_neuronpedia
from graphs.nodes import INPUT_KINDS, TARGET_KINDS, NodeId, NodeKind, NodeTable
from graphs.paths import Path, Paths, strongest_paths
from graphs.positions import align_characters, align_tokens
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
from graphs.select import SelectionError, select
from graphs.storage import read_graph, write_graph
from graphs.summary import NodeLine, Summary, TargetLine, summarise

__all__ = [
    "INPUT_KINDS",
    "PERMUTATIONS",
    "SCHEMA_VERSION",
    "TARGET_KINDS",
    "Annotations",
    "AttributionGraph",
    "Checks",
    "Collapsed",
    "Comparison",
    "CyclicGroups",
    "Description",
    "DictionaryIdentity",
    "Ends",
    "Example",
    "GraphFileError",
    "Group",
    "GroupSettings",
    "Match",
    "ModelIdentity",
    "NodeId",
    "NodeKind",
    "NodeLine",
    "NodeTable",
    "Path",
    "Paths",
    "Provenance",
    "PruneSettings",
    "Score",
    "Scores",
    "SelectionError",
    "Summary",
    "Target",
    "TargetLine",
    "TooManyFeatures",
    "align_characters",
    "align_tokens",
    "annotations_path",
    "collapse",
    "compare",
    "cumulative_influence",
    "entering",
    "find_groups",
    "flow",
    "influence",
    "match_by_identity",
    "named",
    "necessity",
    "prune",
    "read_annotations",
    "read_graph",
    "read_neuronpedia",
    "resolved_influence",
    "scores",
    "select",
    "similarity",
    "strongest_paths",
    "summarise",
    "to_networkx",
    "to_neuronpedia",
    "whole",
    "write_annotations",
    "write_graph",
    "write_graphml",
    "write_neuronpedia",
    "write_node_link",
]
