"""Attribution graphs: nodes, influence, pruning, scores and files.  No torch."""

from .analysis.flow import Ends, flow, necessity
from .analysis.influence import influence
from .analysis.paths import strongest_paths
from .analysis.prune import PruneSettings, prune
from .analysis.scores import Scores, scores
from .analysis.select import SelectionError, select
from .comparison.compare import Comparison, ComparisonError, Score, compare
from .comparison.concepts import Concept, concepts
from .comparison.consensus import Consensus, consensus
from .comparison.correspond import Correspondence, CorrespondSettings, correspond
from .comparison.hops import SkippedHops, skipped_hops
from .comparison.many_prompts import PromptSetComparison, compare_prompt_sets, interval, traits
from .comparison.matching import Match
from .comparison.profiles import Profile, profile_of, read_profile, write_profile
from .comparison.stability import StabilitySettings, stability
from .comparison.transport import Transport, transport
from .comparison.variations import StabilityError
from .core.annotations import (
    NO_ANNOTATIONS,
    Annotations,
    Group,
    annotations_path,
    read_annotations,
    write_annotations,
)
from .core.graph import AttributionGraph
from .core.merging import MergeConflict
from .core.nodes import Description, Example, NodeId, NodeKind, NodeTable
from .core.opening import Bos
from .core.provenance import Checks, DictionaryIdentity, Measured, ModelIdentity, Provenance, Target
from .core.regime import Regime
from .core.report import Report
from .core.stability import Stability
from .disk.files import GraphFileError
from .errors import HeadwaterError
from .formats.dot import to_dot, write_dot
from .formats.interchange import to_networkx, write_gexf, write_graphml, write_node_link
from .formats.neuronpedia.reader import read_neuronpedia
from .formats.neuronpedia.writer import to_neuronpedia, write_neuronpedia
from .formats.parquet import write_parquet
from .formats.storage import read_graph, write_graph
from .formats.tables import MissingPackage, edges_frame, edges_table, nodes_frame, nodes_table
from .groups.collapse import Collapsed, CyclicGroups, collapse
from .groups.grouping import GroupSettings, TooManyFeatures, find_groups, named_groups, similarity
from .interventions.changes import Intervention, intervention
from .interventions.edits import Add, Edit, EditError, Scale, SetTo, Steer, Swap
from .interventions.effects import Effects
from .interventions.mediation import Mediation
from .interventions.mediators import Audited, Mediator
from .interventions.pairs import PromptPair, pairs_in, read_pairs
from .interventions.predict import predict
from .reports.opposing import Opposing, opposing, total_effects
from .reports.summary import Summary, summarise

__all__ = [
    "NO_ANNOTATIONS",
    "Add",
    "Annotations",
    "AttributionGraph",
    "Audited",
    "Bos",
    "Checks",
    "Collapsed",
    "Comparison",
    "ComparisonError",
    "Concept",
    "Consensus",
    "CorrespondSettings",
    "Correspondence",
    "CyclicGroups",
    "Description",
    "DictionaryIdentity",
    "Edit",
    "EditError",
    "Effects",
    "Ends",
    "Example",
    "GraphFileError",
    "Group",
    "GroupSettings",
    "HeadwaterError",
    "Intervention",
    "Match",
    "Measured",
    "Mediation",
    "Mediator",
    "MergeConflict",
    "MissingPackage",
    "ModelIdentity",
    "NodeId",
    "NodeKind",
    "NodeTable",
    "Opposing",
    "Profile",
    "PromptPair",
    "PromptSetComparison",
    "Provenance",
    "PruneSettings",
    "Regime",
    "Report",
    "Scale",
    "Score",
    "Scores",
    "SelectionError",
    "SetTo",
    "SkippedHops",
    "Stability",
    "StabilityError",
    "StabilitySettings",
    "Steer",
    "Summary",
    "Swap",
    "Target",
    "TooManyFeatures",
    "Transport",
    "annotations_path",
    "collapse",
    "compare",
    "compare_prompt_sets",
    "concepts",
    "consensus",
    "correspond",
    "edges_frame",
    "edges_table",
    "find_groups",
    "flow",
    "influence",
    "interval",
    "intervention",
    "named_groups",
    "necessity",
    "nodes_frame",
    "nodes_table",
    "opposing",
    "pairs_in",
    "predict",
    "profile_of",
    "prune",
    "read_annotations",
    "read_graph",
    "read_neuronpedia",
    "read_pairs",
    "read_profile",
    "scores",
    "select",
    "similarity",
    "skipped_hops",
    "stability",
    "strongest_paths",
    "summarise",
    "to_dot",
    "to_networkx",
    "to_neuronpedia",
    "total_effects",
    "traits",
    "transport",
    "write_annotations",
    "write_dot",
    "write_gexf",
    "write_graph",
    "write_graphml",
    "write_neuronpedia",
    "write_node_link",
    "write_parquet",
    "write_profile",
]
